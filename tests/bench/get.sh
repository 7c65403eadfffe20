#!/bin/sh
# get over loopback, from psync's own server, from nginx over the same block directory and from a plain
# copy, beside what fetches a file without psync. Every contestant's file ends in memory.
# SLOW=1: casync with chunks of 4 KiB too, which takes minutes.
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
need curl nginx openssl sha256sum

random_file file $((MIB * 1024))
"$PSYNC" export --no-sync -d "$dir/blocks" "$dir/file" >"$dir/list"
serve_psync --file "$dir/file"
file_addr=$addr
# shellcheck disable=SC2119 # the script takes no words
serve_psync
serve_nginx "$dir"
! have rsync || serve_rsync
! have_libtorrent || serve_torrent file

# A URL a block, all to /dev/null: curl need not make a file of each, nor put them together.
sed "s|.*|url = \"http://$nginx_addr/blocks/&\"\noutput = \"/dev/null\"|" "$dir/list" >"$dir/urls"

get() { # NAME OUTPUT ARGUMENT...
    contestant=$1 to=$2
    shift 2
    rm -f "$dir/out"
    measure "$contestant" "$to" "$PSYNC" get -d "$dir/none" "$@" "$dir/list"
    same file out
}
# shellcheck disable=SC2016 # the inner shell's own words
curl_into() { measure "$1" /dev/null sh -c 'curl -s "$1" | $2' sh "http://$nginx_addr/file" "$2"; }
casync_of() { # NAME CHUNK
    casync make --without=all --chunk-size="$2" --store="$dir/$1.castr" "$dir/$1.caibx" "$dir/file" >/dev/null
    rm -f "$dir/out"
    measure "$1" /dev/null casync extract --store="http://$nginx_addr/$1.castr" "$dir/$1.caibx" "$dir/out"
    same file out
    rm -rf "$dir/$1.castr"
}
bita_of() { # NAME CHUNK
    [ -e "$dir/$1.cba" ] || bita compress --fixed-size "$2" --compression none -i "$dir/file" "$dir/$1.cba" >/dev/null
    rm -f "$dir/out"
    measure "$1" /dev/null bita clone "http://$nginx_addr/$1.cba" "$dir/out"
    same file out
}

peers=
for peer in zsync casync bita; do ! have "$peer" || peers="$peers $peer"; done
for run in $(runs); do
    get psync "$dir/out" "$addr"
    get psync-o /dev/null -o "$dir/out" "$addr"
    get psync-file "$dir/out" "$file_addr"
    get psync-nginx "$dir/out" "http://$nginx_addr/blocks"
    get psync-mirror "$dir/out" -m "http://$nginx_addr/file"
    rm -f "$dir/out"
    measure curl /dev/null curl -s -o "$dir/out" "http://$nginx_addr/file"
    same file out
    curl_into curl-openssl 'openssl dgst -sha256'
    curl_into curl-sha256sum sha256sum
    measure curl-Z /dev/null curl --no-progress-meter -Z --parallel-max 8 -K "$dir/urls"
    if [ -n "${rsync_addr:-}" ]; then
        rm -f "$dir/out"
        measure rsync /dev/null rsync "rsync://$rsync_addr/all/file" "$dir/out"
        same file out
    fi
    [ -z "${torrent_addr:-}" ] || torrent_get torrent file "$torrent_addr"
    for peer in $peers; do
        case $peer in
        zsync)
            [ -e "$dir/file.zsync" ] || zsyncmake -u file -o "$dir/file.zsync" "$dir/file" 2>/dev/null
            rm -f "$dir/out"
            measure_in_dir zsync zsync -q -o out "http://$nginx_addr/file.zsync"
            same file out
            ;;
        casync) once "$run" casync_of casync-64k 65536 ;;
        bita) bita_of bita-64k 64KiB && once "$run" bita_of bita-4k 4KiB ;;
        esac
    done
done
case ${SLOW:-} in
'') echo 'casync with chunks of 4 KiB takes minutes: left out without SLOW=1' ;;
*) ! have casync || casync_of casync-4k 4096 ;;
esac

label psync 'from psync server to stdout'
label psync-o 'from psync server, -o'
label psync-file 'from psync server --file to stdout'
label psync-nginx 'from nginx, a GET a block'
label psync-mirror 'from a plain copy, -m'
label curl 'curl -o'
label curl-openssl 'curl | openssl dgst -sha256'
label curl-sha256sum 'curl | sha256sum'
label curl-Z 'curl -Z, 8 at once, a URL a block'
label rsync 'rsync, from a daemon'
label torrent 'BitTorrent, one seeder (libtorrent)'
label zsync zsync
label casync-64k 'casync, 64 KiB chunks'
label casync-4k 'casync, 4 KiB chunks'
label bita-64k 'bita, 64 KiB chunks'
label bita-4k 'bita, 4 KiB chunks'

job "Get $MIB MiB over loopback"
beside psync curl most 1.1
beside psync-o curl most 1.3
beside psync curl-openssl most 1
beside psync curl-sha256sum
beside psync-file curl
beside psync-mirror curl
for peer in rsync torrent zsync casync-64k bita-64k; do beside psync-o "$peer"; done
bars psync psync-o psync-file psync-mirror curl curl-openssl curl-sha256sum rsync torrent zsync casync-64k bita-64k

job "Get $MIB MiB over loopback, 4 KiB at a time"
beside psync-nginx curl-Z most 0.8
for peer in casync-4k bita-4k; do beside psync-nginx "$peer"; done
bars psync-nginx curl-Z casync-4k bita-4k

job 'The memory of get'
for contestant in psync psync-o psync-nginx psync-mirror; do median "$contestant.peak"; done |
    sort -n | tail -n 1 | awk '{ print $1 / 1024 }' >"$dir/psync-peak.values"
echo MiB >"$dir/psync-peak.unit"
label psync-peak 'at most in these runs'
within psync-peak most 12
