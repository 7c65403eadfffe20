#!/bin/sh
# get over slow lines, made by the relay: a latency and a rate in each direction.
# The random file is an eighth of MIB here, a thirty-second for the slower line, and N at most 3: on a
# line that is always as slow, more runs tell nothing.
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
need curl nginx
[ "$N" -le 3 ] || N=3
KIB=$((MIB * 128))

random_file fast "$KIB"
random_file far $((KIB / 4))
random_file slow 256
for file in fast far slow; do "$PSYNC" export --no-sync -d "$dir/blocks" "$dir/$file" >"$dir/$file.list"; done
# shellcheck disable=SC2119 # the script takes no words
serve_psync
serve_nginx "$dir"

line() { # NAME TARGET RTT_MS BITS_PER_SECOND: a line, and its address under that name
    serve_relay "$2" "$3" "$4"
    eval "$1=\$relay_addr"
}
line fast "$addr" 50 100000000
line fast_nginx "$nginx_addr" 50 100000000
line far "$addr" 300 20000000
line far_nginx "$nginx_addr" 300 20000000
line slow "$addr" 200 64000
line half "$addr" 50 50000000
line other_half "$addr" 50 50000000
if have rsync; then
    serve_rsync
    line fast_rsync "$rsync_addr" 50 100000000
fi
if have_libtorrent; then
    serve_torrent fast
    line fast_torrent "$torrent_addr" 50 100000000
fi
# shellcheck disable=SC2154 # `line` has set them
: "$fast" "$fast_nginx" "$far" "$far_nginx" "$slow" "$half" "$other_half" "${fast_rsync:=}" "${fast_torrent:=}"

get() { # NAME FILE ARGUMENT...
    contestant=$1 file=$2
    shift 2
    measure "$contestant" "$dir/out" "$PSYNC" get -d "$dir/none" "$@" "$dir/$file.list"
    same "$file" out
}
curl_of() { # NAME FILE ADDR
    measure "$1" /dev/null curl -s -o "$dir/out" "http://$3/$2"
    same "$2" out
}
zsync_of() {
    zsyncmake -u fast -o "$dir/fast.zsync" "$dir/fast" 2>/dev/null
    rm -f "$dir/out"
    measure_in_dir zsync zsync -q -o out "http://$fast_nginx/fast.zsync"
    same fast out
}
casync_of() {
    casync make --without=all --store="$dir/fast.castr" "$dir/fast.caibx" "$dir/fast" >/dev/null
    rm -f "$dir/out"
    measure casync /dev/null casync extract --store="http://$fast_nginx/fast.castr" "$dir/fast.caibx" "$dir/out"
    same fast out
}
bita_of() {
    bita compress --fixed-size 64KiB --compression none -i "$dir/fast" "$dir/fast.cba" >/dev/null
    rm -f "$dir/out"
    measure bita /dev/null bita clone "http://$fast_nginx/fast.cba" "$dir/out"
    same fast out
}

for _ in $(runs); do
    get psync fast "$fast"
    get psync-mirror fast -m "http://$fast_nginx/fast"
    get psync-nginx fast -j 64 "http://$fast_nginx/blocks"
    curl_of curl fast "$fast_nginx"
    get psync-far far "$far"
    curl_of curl-far far "$far_nginx"
    get psync-half fast "$half"
    get psync-spread fast --spread "$half" "$other_half"
done
get psync-slow slow --timeout 10 "$slow"
# Two round trips and the bytes, as if heads and hashes were nothing.
record line-slow s "$(awk 'BEGIN { print 2 * 0.2 + 262144 * 8 / 64000 }')"
if [ -n "$fast_rsync" ]; then
    rm -f "$dir/out"
    measure rsync /dev/null rsync "rsync://$fast_rsync/all/fast" "$dir/out"
    same fast out
fi
[ -z "$fast_torrent" ] || torrent_get torrent fast "$fast_torrent"
for peer in zsync casync bita; do ! have "$peer" || "${peer}_of"; done

label psync 'from psync server'
label psync-mirror 'from a plain copy, -m'
label psync-nginx 'from nginx, a GET a block, -j 64'
label psync-far 'from psync server'
label psync-half 'one server'
label psync-spread '--spread over two'
label psync-slow 'from psync server, --timeout 10'
label curl 'curl -o'
label curl-far 'curl -o'
label rsync 'rsync, from a daemon'
label torrent 'BitTorrent, one seeder (libtorrent)'
label zsync zsync
label casync 'casync, 64 KiB chunks'
label bita 'bita, 64 KiB chunks'
label line-slow 'the line itself'

job "Get $(mib "$KIB") MiB at 50 ms and 100 Mbit/s"
beside psync curl most 1.05
beside psync-mirror curl most 1.1
beside psync-nginx curl most 3
for peer in rsync torrent zsync casync bita; do beside psync "$peer"; done
bars psync psync-mirror psync-nginx curl rsync torrent zsync casync bita

job "Get $(mib $((KIB / 4))) MiB at 300 ms and 20 Mbit/s"
beside psync-far curl-far
bars psync-far curl-far

job 'Get 256 KiB at 200 ms and 64 kbit/s'
beside psync-slow line-slow

job "Get $(mib "$KIB") MiB from servers at 50 ms and 50 Mbit/s each"
beside psync-spread psync-half most 0.6
bars psync-half psync-spread
