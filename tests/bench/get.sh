#!/bin/sh
# get over loopback, from psync's own server and from nginx over the same block directory, beside curl
# of the whole file into sha256sum: what a plain verified download costs.
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
need curl sha256sum
PATH=$PATH:/usr/sbin need nginx

random_file
"$PSYNC" export --no-sync -d "$dir/blocks" "$dir/file" >"$dir/list"
# shellcheck disable=SC2119 # the script takes no words
serve_psync
serve_nginx "$dir"

for _ in $(runs); do
    measure psync "$dir/out" "$PSYNC" get -d "$dir/none" "$addr" "$dir/list"
    cmp "$dir/file" "$dir/out"
    measure nginx "$dir/out" "$PSYNC" get -d "$dir/none" "http://$nginx_addr/blocks" "$dir/list"
    cmp "$dir/file" "$dir/out"
    # shellcheck disable=SC2016 # the inner shell's own words
    measure curl /dev/null sh -c 'curl -s "http://$1/file" | tee "$2" | sha256sum' sh "$nginx_addr" "$dir/out"
    cmp "$dir/file" "$dir/out"
done

plain=$(median curl.s)
echo "$MIB MiB over loopback, medians of $N alternating runs"
for from in psync nginx; do
    seconds=$(median "$from.s")
    printf 'get from %-5s %6s s   curl | tee | sha256sum %6s s   ratio %s   peak %s MiB (under 12)\n' "$from" \
        "$seconds" "$plain" "$(ratio "$seconds" "$plain")" "$(mib "$(median "$from.k")")"
done
