#!/bin/sh
# An update: the old version is at hand, a hundredth of the new one's blocks differ, in 40 places, and
# come over a line of 50 ms and 100 Mbit/s. What is counted is what the line carries, both ways; lists
# and indices that name the new version are at hand where a program can use them so; with a root the list
# comes over the line too.
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
need curl nginx
[ "$N" -le 3 ] || N=3
PLACES=40

random_file new $((MIB * 1024))
cp "$dir/new" "$dir/old"
blocks=$((MIB * 256))
fresh=$((blocks / 100))
for place in $(seq 0 $((PLACES - 1))); do
    length=$((fresh / PLACES + (place < fresh % PLACES)))
    # At regular distances every place, or none, would lie across two blocks of the list.
    seek=$((place * blocks / PLACES + place * 7919 % (blocks / PLACES - length)))
    dd if=/dev/urandom of="$dir/old" bs=4096 count="$length" seek="$seek" conv=notrunc status=none
done
"$PSYNC" export --no-sync -d "$dir/blocks" "$dir/new" >"$dir/list"
root=$("$PSYNC" export --no-sync --root -d "$dir/blocks" "$dir/new")
# shellcheck disable=SC2119 # the script takes no words
serve_psync
serve_nginx "$dir"
serve_relay "$addr" 50 100000000
psync_line=$relay_addr psync_log=$relay_log
serve_relay "$nginx_addr" 50 100000000
nginx_line=$relay_addr nginx_log=$relay_log
if have rsync; then
    serve_rsync
    serve_relay "$rsync_addr" 50 100000000
    rsync_line=$relay_addr rsync_log=$relay_log
fi

update() { # NAME COMMAND...: its time, and its bytes as NAME-bytes
    contestant=$1
    shift
    before=$(carried)
    measure_in_dir "$contestant" "$@"
    same new out
    record "$contestant-bytes" MiB "$(echo "$before $(carried)" | awk '{ printf "%.3f", ($2 - $1) / 1048576 }')"
    rm -f "$dir/out" "$dir/out.zs-old"
}
zsync_of() {
    zsyncmake -u new -o "$dir/new.zsync" "$dir/new" 2>/dev/null
    update zsync zsync -q -i old -o out -u "http://$nginx_line/" new.zsync
}
casync_of() {
    casync make --without=all --store="$dir/new.castr" "$dir/new.caibx" "$dir/new" >/dev/null
    update casync casync extract --store="http://$nginx_line/new.castr" --seed=old new.caibx out
}
bita_of() {
    bita compress --fixed-size 4KiB --compression none -i "$dir/new" "$dir/new.cba" >/dev/null
    update bita bita clone --seed old "http://$nginx_line/new.cba" out
}

relay_log=$psync_log
for _ in $(runs); do
    cp "$dir/old" "$dir/out"
    update psync "$PSYNC" get -d none -o out "$psync_line" list
    cp "$dir/old" "$dir/out"
    update psync-root "$PSYNC" get -d none -o out "$psync_line" "$root"
done
if [ -n "${rsync_line:-}" ]; then
    relay_log=$rsync_log
    cp "$dir/old" "$dir/out"
    # By content: the sizes are the same, and the times tell nothing.
    update rsync rsync --ignore-times "rsync://$rsync_line/all/new" out
fi
relay_log=$nginx_log
for peer in zsync casync bita; do ! have "$peer" || "${peer}_of"; done
record fresh MiB "$(awk -v blocks="$fresh" 'BEGIN { printf "%.3f", blocks / 256 }')"

label psync 'get -o over the old version'
label psync-root 'the same by its root, the list included'
label rsync 'rsync over the old version'
label zsync 'zsync -i'
label casync 'casync --seed, 64 KiB chunks'
label bita 'bita --seed, 4 KiB chunks, with its index'
for contestant in psync psync-root rsync zsync casync bita; do
    label "$contestant-bytes" "$(cat "$dir/$contestant.label")"
done
label fresh 'the new blocks alone'

job "Update $MIB MiB of which 1 % is new: MiB on the line"
beside psync-bytes fresh most 1.05
beside psync-root-bytes fresh most 1.15
for peer in rsync zsync casync bita; do beside psync-bytes "$peer-bytes"; done
bars fresh psync-bytes psync-root-bytes rsync-bytes zsync-bytes casync-bytes bita-bytes

job "Update $MIB MiB of which 1 % is new: seconds at 50 ms and 100 Mbit/s"
beside psync-root psync
for peer in rsync zsync casync bita; do beside psync "$peer"; done
bars psync psync-root rsync zsync casync bita
