#!/bin/sh
# Packs a release: what `make install` puts in place, with the static binary for this machine or for the
# TARGET named, as a tarball and, where there is dpkg-deb, as a Debian package; with SHA-256 sums.
#
# The same commit and compiler give the same bytes, wherever and whenever: names are sorted, and times
# are $SOURCE_DATE_EPOCH, else the commit's, else, in a copy without git, that of CHANGELOG.md.
set -eu
umask 022
export LC_ALL=C

binary=$(sh tests/static.sh "$@")
binary=${binary%: static*}
build=${binary%/release/psync}
target=${build##*/}
arch=${target%%-*}
out=${build%/*}/dist
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct -- . 2>/dev/null || :)}
SOURCE_DATE_EPOCH=${epoch:-$(stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$out"

put() { # PREFIX DIRECTORY
    "${MAKE:-make}" -s install DESTDIR="$2" PREFIX="$1" BINARY="$binary" --old-file="$binary"
}
sums() { # PROGRAM WORDS...: of the files that find names by these
    sum=$1
    shift
    find "$@" -type f -exec "$sum" {} + | sort -k 2
}
settle() { # DIRECTORY: all in it is as old as the release
    find "$1" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
}

name=psync-$version-$arch
put /usr/local "$stage/local"
mv "$stage/local/usr/local" "$stage/$name"
install -m 644 README.md CHANGELOG.md LICENSE "$stage/$name"
install -m 755 share/psync.init "$stage/$name"
(cd "$stage/$name" && sums sha256sum . >../SHA256SUMS && mv ../SHA256SUMS .)
settle "$stage/$name"
tar -C "$stage" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner -cf "$out/$name.tar" "$name"
gzip -9nf "$out/$name.tar"

if command -v dpkg-deb >/dev/null; then
    case $arch in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; armv7) arch=armhf ;; esac
    deb=$stage/deb
    doc=$deb/usr/share/doc/psync
    put /usr "$deb"
    # Where Debian's zsh looks, and manuals as Debian wants them.
    mv "$deb/usr/share/zsh/site-functions" "$deb/usr/share/zsh/vendor-completions"
    gzip -9n "$deb/usr/share/man/man1/psync.1"
    for link in "$deb"/usr/share/man/man1/psync-*.1; do
        rm "$link"
        ln -s psync.1.gz "$link.gz"
    done
    install -D -m 755 share/psync.init "$doc/examples/psync.init"
    install -m 644 README.md CHANGELOG.md "$doc"
    install -m 644 LICENSE "$doc/copyright"
    mkdir "$deb/DEBIAN"
    (cd "$deb" && sums md5sum usr >DEBIAN/md5sums)
    cat >"$deb/DEBIAN/control" <<END
Package: psync
Version: $version
Architecture: $arch
Maintainer: The psync authors
Installed-Size: $(($(find "$deb/usr" -type f -exec cat {} + | wc -c) / 1024 + 1))
Section: net
Priority: optional
Description: files from any server, as hash-named blocks
 $(sed -n 's/^description = "\(.*\)"/\1/p' Cargo.toml).
END
    settle "$deb"
    dpkg-deb --root-owner-group -Zxz --build "$deb" "$out/psync_${version}_$arch.deb" >/dev/null
else
    echo 'dpkg-deb is missing, so there is no Debian package' >&2
fi

cd "$out"
sums sha256sum psync[-_]"$version"[-_]* >SHA256SUMS
echo "$out:" && cat SHA256SUMS
