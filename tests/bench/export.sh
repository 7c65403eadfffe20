#!/bin/sh
# export beside split (which neither hashes nor renames) and sha256sum (which only hashes), in memory.
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
need split sha256sum
random_file

for _ in $(runs); do
    rm -rf "$dir/blocks" "$dir/split"
    mkdir "$dir/split"
    measure export "$dir/list" "$PSYNC" export -d "$dir/blocks" "$dir/file"
    measure split /dev/null split -b 4096 -a 5 "$dir/file" "$dir/split/x"
    rm -rf "$dir/split"
    measure again "$dir/list.again" "$PSYNC" export -d "$dir/blocks" "$dir/file"
    measure sha256sum /dev/null sha256sum "$dir/file"
    measure nostore "$dir/list.nostore" "$PSYNC" export --no-store "$dir/file"
    cmp "$dir/list" "$dir/list.again"
    cmp "$dir/list" "$dir/list.nostore"
done

row() { # NAME WHAT BESIDE TARGET
    ours=$(median "$1.s") theirs=$(median "$3.s")
    printf '%-34s %6s s   %-10s %6s s   ratio %s (at most %s)   peak %s MiB\n' "$2" "$ours" "$3" "$theirs" \
        "$(ratio "$ours" "$theirs")" "$4" "$(mib "$(median "$1.k")")"
}
echo "$MIB MiB of random bytes, medians of $N alternating runs"
row export 'export into an empty directory' split 1.3
row again 'export again' sha256sum 0.6
row nostore 'export --no-store' sha256sum 0.35
