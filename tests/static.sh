#!/bin/sh
# Builds a statically linked psync and proves it: with the musl target where rustup has it installed,
# else with this toolchain's own libc.
set -eu

host=$(rustc -vV | sed -n 's/^host: //p')
musl=$(rustup target list --installed 2>/dev/null | grep "^${host%%-*}-.*-linux-musl" | head -n 1) || true
target=${musl:-$host}

# With --target the flags do not reach build scripts, which must stay dynamic.
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
cargo build --locked --release --target "$target"
binary=${CARGO_TARGET_DIR:-target}/$target/release/psync

headers=$(LC_ALL=C readelf -W -l -d "$binary")
if echo "$headers" | grep -E 'NEEDED|INTERP' >&2; then
    echo "$binary is not static" >&2
    exit 1
fi
"$binary" --version >/dev/null
echo "$binary: static, $(wc -c <"$binary") bytes"
