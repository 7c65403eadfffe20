#!/bin/sh
# The main job on a real file, told step by step: export, server, get, compare.
# PSYNC: the binary. FILE: any file; else the largest shared library of the Rust toolchain.
set -eu

: "${PSYNC:=target/release/psync}"
file=${FILE:-}
if [ -z "$file" ]; then
    lib=$(rustc --print sysroot)/lib
    # ls -S puts the largest first.
    file=$(find -L "$lib" -name '*.so*' -type f -exec ls -S {} + | head -n 1)
fi
[ -r "$file" ] || { echo "demo: cannot read '$file'" >&2; exit 1; }

dir=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# Seconds since some moment, as finely as this system's date tells.
now() { date +%s.%N | sed 's/\.N$//; s/\.%N$//'; }
size=$(wc -c <"$file")
rate() {
    awk -v from="$1" -v to="$(now)" -v size="$size" \
        'BEGIN { s = to - from; if (s < 0.001) s = 0.001; printf "%.2f s, %.0f MB/s", s, size / s / 1e6 }'
}

echo "The file: $file"
echo "          $size bytes"

from=$(now)
"$PSYNC" export -d "$dir/blocks" "$file" >"$dir/list"
echo "export:   $(wc -l <"$dir/list") hashes, one for each 4096 bytes, and their blocks on the disk: $(rate "$from")"

# The server names its address once it accepts; if it ends first, so does the read.
mkfifo "$dir/listening"
"$PSYNC" server -d "$dir/blocks" 127.0.0.1:0 >"$dir/listening" &
server=$!
exec 3<"$dir/listening"
read -r _ _ addr <&3 || { echo "demo: the server did not start" >&2; exit 1; }
echo "server:   serves the blocks at http://$addr/"

from=$(now)
"$PSYNC" get -d "$dir/nothing-yet" "$addr" "$dir/list" >"$dir/out"
echo "get:      every block fetched, hashed and written in order: $(rate "$from")"

cmp "$file" "$dir/out"
echo "compare:  the same, byte for byte"
