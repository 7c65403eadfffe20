#!/bin/sh
# export beside split (which neither hashes nor renames) and sha256sum (which only hashes), in memory.
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
need split sha256sum
random_file file $((MIB * 1024))

for _ in $(runs); do
    rm -rf "$dir/blocks" "$dir/split"
    mkdir "$dir/split"
    measure psync "$dir/list" "$PSYNC" export -d "$dir/blocks" "$dir/file"
    measure split /dev/null split -b 4096 -a 5 "$dir/file" "$dir/split/x"
    rm -rf "$dir/split"
    measure psync-again "$dir/list.again" "$PSYNC" export -d "$dir/blocks" "$dir/file"
    measure sha256sum /dev/null sha256sum "$dir/file"
    measure psync-nostore "$dir/list.nostore" "$PSYNC" export --no-store "$dir/file"
    same list list.again
    same list list.nostore
done

label psync 'export into an empty directory'
label psync-again 'export again'
label psync-nostore 'export --no-store'
label split 'split, no hashes'
label sha256sum sha256sum

job "Export $MIB MiB"
beside psync split most 1.3
beside psync-again sha256sum most 0.6
beside psync-nostore sha256sum most 0.35
bars psync split psync-again psync-nostore sha256sum
