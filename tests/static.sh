#!/bin/sh
# Builds a statically linked psync and proves it: for the TARGET named, else for this machine, with the
# musl target where rustup has it installed or else with this toolchain's own libc.
#
# std for another target is rustup's, or else built from its source, which only an unstable option of
# cargo does. LINKER names another one than Debian's. No path of this machine gets into the binary.
set -eu

host=$(rustc -vV | sed -n 's/^host: //p')
installed=$(rustup target list --installed 2>/dev/null) || installed=$host
target=${1:-$(echo "$installed" | grep "^${host%%-*}-.*-linux-musl" | head -n 1)}
target=${target:-$host}

# Debian's name for it: armv7-unknown-linux-musleabihf has arm-linux-gnueabihf-gcc.
abi=${target##*-}
abi=${abi#gnu}
case ${target%%-*} in
    "${host%%-*}") linker=cc ;;
    arm*) linker=arm-linux-gnu${abi#musl}-gcc ;;
    *) linker=${target%%-*}-linux-gnu${abi#musl}-gcc ;;
esac

# With --target the flags do not reach build scripts, which must stay dynamic. Encoded, for paths with
# spaces.
flags=$(printf %s "${RUSTFLAGS:-}" | tr -s ' ' '\037')
flag() { flags=${flags:+$flags$(printf '\037')}$1; }
flag -Ctarget-feature=+crt-static

if ! echo "$installed" | grep -qx "$target"; then
    for RUSTC in rustc /usr/bin/rustc; do
        source=$("$RUSTC" --print sysroot 2>/dev/null)/lib/rustlib/src/rust
        if [ -d "$source/library/std" ]; then break; fi
    done
    if [ ! -d "$source/library/std" ]; then
        echo "no std for $target. With rustup: rustup target add $target, or where there is none," \
            "rustup component add rust-src. On Debian: apt-get install rustc-web rust-web-src" >&2
        exit 1
    fi
    export RUSTC RUSTC_BOOTSTRAP=1
    flag "--remap-path-prefix=$source=/rustc/$("$RUSTC" -vV | sed -n 's/^commit-hash: //p')"
    case $target in *-musl)
        # Such a std has no musl and no unwinder of its own. Debian's musl is that of this machine alone,
        # and the unwinder of gcc 12 and later wants what only glibc has.
        linker=musl-gcc
        unwinder=${CARGO_TARGET_DIR:-target}/musl-unwinder
        mkdir -p "$unwinder"
        ln -sf /usr/lib/gcc/*-linux-gnu/11/libgcc_eh.a "$unwinder/libunwind.a"
        flag -Clink-self-contained=no
        flag -Crelocation-model=static
        flag "-Lnative=$unwinder"
    esac
fi

linker=${LINKER:-$linker}
if ! command -v "$linker" >/dev/null; then
    case $linker in musl-gcc) package="musl-tools libgcc-11-dev" ;; *) package="gcc-${linker%-gcc}" ;; esac
    echo "$linker is missing. On Debian: apt-get install $package; LINKER= names another" >&2
    exit 1
fi
flag "-Clinker=$linker"

cargo fetch --locked --quiet
for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
    flag "--remap-path-prefix=$crates=crates/"
done
export CARGO_ENCODED_RUSTFLAGS="$flags"
cargo ${RUSTC_BOOTSTRAP:+-Zbuild-std=std,panic_unwind} build --locked --release --target "$target"
binary=${CARGO_TARGET_DIR:-target}/$target/release/psync

headers=$(LC_ALL=C readelf -W -l -d "$binary")
if echo "$headers" | grep -E 'NEEDED|INTERP' >&2; then
    echo "$binary is not static" >&2
    exit 1
fi
if [ "${target%%-*}" = "${host%%-*}" ]; then "$binary" --version >/dev/null; fi
echo "$binary: static, $(wc -c <"$binary") bytes"
