# shellcheck shell=sh
# Shared by the benchmarks: a private directory in memory, alternating runs, medians, peers, a slow
# link, servers that end with the script. Measures, never judges: a busy machine is no fault.
#
# PSYNC, RELAY: the binaries. N: runs of each contestant. MIB: the size of the random file.
# RESULTS: a file for what `run.sh` writes down, a line a row of the table or a bar of the plot.
set -eu
: "${PSYNC:=target/release/psync}" "${RELAY:=target/release/examples/relay}" "${N:=5}" "${MIB:=256}"
: "${RESULTS:=/dev/null}"
PATH=$PATH:/usr/sbin

need() {
    for program; do
        command -v "$program" >/dev/null || {
            echo "$0: $program is missing; Debian: apt-get install curl nginx-light openssl time wrk" >&2
            exit 1
        }
    done
}
need "$PSYNC" /usr/bin/time
# Contestants also run elsewhere.
PSYNC=$(realpath "$(command -v "$PSYNC")")

# have PROGRAM: a peer that is measured where it is installed
have() {
    command -v "$1" >/dev/null && return
    echo "$1 is not installed: left out"
    return 1
}

# libtorrent, which has no program of its own.
TORRENT=$(dirname "$0")/torrent.py
have_libtorrent() {
    /usr/bin/python3 -c 'import libtorrent' 2>/dev/null && return
    echo 'python3-libtorrent is not installed: left out'
    return 1
}

base=/dev/shm
[ -d "$base" ] || { base=${TMPDIR:-/tmp}; echo "no /dev/shm: the disk is measured too" >&2; }
dir=$(mktemp -d "$base/psync-bench.XXXXXX")
started=
finish() {
    for pid in $started; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# Contestants. Each has a NAME, which begins with "psync" where it is psync's own; the files
# NAME.values, NAME.unit, NAME.label and NAME.peak (KiB) say what is known of it.

runs() { seq "$N"; }

# once RUN COMMAND...: runs it on the first of the runs only; for a peer that takes very long
once() {
    [ "$1" = 1 ] || return 0
    shift
    "$@"
}

# random_file NAME KIB
random_file() { head -c "$(($2 * 1024))" /dev/urandom >"$dir/$1"; }

# record NAME UNIT VALUE
record() {
    echo "$2" >"$dir/$1.unit"
    echo "$3" >>"$dir/$1.values"
}

# measure NAME OUTPUT COMMAND...: one run, its seconds and its peak of memory
measure() {
    name=$1 output=$2
    shift 2
    from=$(date +%s%N)
    /usr/bin/time -a -o "$dir/$name.peak" -f %M "$@" >"$output"
    to=$(date +%s%N)
    record "$name" s "$(echo "$from $to" | awk '{ printf "%.3f", ($2 - $1) / 1e9 }')"
}

# measure_in_dir NAME COMMAND...: in the private directory, for what puts its temporary files (zsync)
# where it is
measure_in_dir() { (contestant=$1 && shift && cd "$dir" && measure "$contestant" /dev/null "$@"); }

# same FILE OUTPUT: a contestant that delivers something else has not taken part
same() { cmp "$dir/$1" "$dir/$2"; }

# median FILE
median() { sort -n "$dir/$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

mib() { awk -v k="$1" 'BEGIN { printf "%.1f", k / 1024 }'; }

# shown NAME: the median with its unit
shown() {
    median "$1.values" | awk -v unit="$(cat "$dir/$1.unit")" '
        { printf($1 >= 1000 ? "%.0f %s" : $1 >= 10 ? "%.1f %s" : "%.2f %s", $1, unit) }'
}

# label NAME TEXT
label() { printf '%s\n' "$2" >"$dir/$1.label"; }

# Appends to RESULTS, tabs between.
result() { (IFS='	'; echo "$*") >>"$RESULTS"; }

# judged VALUE most|least TARGET
judged() {
    awk -v value="$1" -v bound="$2" -v target="$3" 'BEGIN {
        met = bound == "most" ? value <= target : value >= target
        printf "at %s %s%s", bound, target, met ? "" : ", missed"
    }'
}

# beside NAME PEER [most|least TARGET]: a row of the table, where both have run
beside() {
    [ -e "$dir/$1.values" ] && [ -e "$dir/$2.values" ] || return 0
    quotient=$(echo "$(median "$1.values") $(median "$2.values")" | awk '{ printf "%.2f", $1 / $2 }')
    target=
    [ $# = 2 ] || target=$(judged "$quotient" "$3" "$4")
    peak=
    [ ! -e "$dir/$1.peak" ] || peak=", $(mib "$(median "$1.peak")") MiB"
    row "$(cat "$dir/$1.label")" "$(shown "$1")$peak" "$(cat "$dir/$2.label")" "$(shown "$2")" "$quotient" "$target"
}

# within NAME [most|least TARGET]: a row that needs no peer; the target is in the unit of the value
within() {
    target=
    [ $# = 1 ] || target=$(judged "$(median "$1.values")" "$2" "$3")
    row "$(cat "$dir/$1.label")" "$(shown "$1")" '' '' '' "$target"
}

row() { # WHAT PSYNC PEER ITS RATIO TARGET
    printf '%-46s %-18s %-34s %-12s %5s  %s\n' "$@"
    result row "$title" "$@"
}

# job TITLE: what the rows that follow are about
job() {
    title=$1
    printf '\n%s\n' "$title"
    result job "$title"
}

# bars NAME...: a group of the plot under the present title; one that has not run is left out
bars() {
    for name; do
        [ -e "$dir/$name.values" ] || continue
        result bar "$title" "$(cat "$dir/$name.label")" "$(median "$name.values")" "$(shown "$name")" \
            "${name%"${name#psync}"}"
    done
}

# heard FILE WORDS: waits for a line that begins so and prints its next word
heard() {
    for _ in $(seq 200); do
        word=$(sed -n "s/^$2 \([^ ]*\).*/\1/p" "$1" | head -n 1)
        if [ -n "$word" ]; then
            echo "$word"
            return
        fi
        sleep 0.05
    done
    echo "$0: no word of \"$2\"" >&2
    exit 1
}

# serve_psync OPTION...: sets server (process id) and addr
serve_psync() {
    : >"$dir/listening"
    "$PSYNC" server -d "$dir/blocks" "$@" 127.0.0.1:0 >"$dir/listening" &
    server=$!
    started="$started $server"
    # shellcheck disable=SC2034 # for the scripts
    addr=$(heard "$dir/listening" 'listening on')
}

# serve_relay TARGET RTT_MS BITS_PER_SECOND: sets relay_addr, and for `carried` relay_log
relays=0
serve_relay() {
    need "$RELAY"
    relays=$((relays + 1))
    relay_log=$dir/relay.$relays
    : >"$relay_log"
    "$RELAY" "$@" >"$relay_log" &
    started="$started $!"
    # shellcheck disable=SC2034 # for the scripts
    relay_addr=$(heard "$relay_log" 'listening on')
}

# carried: the bytes that this relay has carried so far, both ways
carried() {
    # Longer than the relay lets its last word wait.
    sleep 0.3
    awk '/^carried/ { bytes = $2 + $3 } END { print bytes + 0 }' "$relay_log"
}

# serve_rsync: the private directory as module "all"; sets rsync_addr
serve_rsync() {
    printf '%s\n' 'use chroot = no' '[all]' "path = $dir" >"$dir/rsync.conf"
    [ "$(id -u)" != 0 ] || printf '%s\n' 'uid = 0' 'gid = 0' >>"$dir/rsync.conf"
    for attempt in 1 2 3 4 5; do
        port=$(free_port)
        rsync --daemon --no-detach --config="$dir/rsync.conf" --address=127.0.0.1 --port="$port" &
        pid=$!
        rsync_addr=127.0.0.1:$port
        while kill -0 "$pid" 2>/dev/null; do
            if rsync "rsync://$rsync_addr/" >"$dir/rsync.modules" 2>/dev/null; then
                started="$started $pid"
                return
            fi
            sleep 0.05
        done
    done
    echo "$0: rsync does not start" >&2
    exit 1
}

# serve_torrent NAME: makes NAME.torrent too; sets torrent_addr
serve_torrent() {
    : >"$dir/torrent.log"
    /usr/bin/python3 "$TORRENT" seed "$dir/$1" >"$dir/torrent.log" &
    started="$started $!"
    # shellcheck disable=SC2034 # for the scripts
    torrent_addr=$(heard "$dir/torrent.log" 'listening on')
}

# torrent_get CONTESTANT NAME ADDRESS
torrent_get() {
    mkdir -p "$dir/torrent"
    measure "$1" /dev/null /usr/bin/python3 "$TORRENT" get "$dir/$2.torrent" "$3" "$dir/torrent"
    same "$2" "torrent/$2"
    rm -r "$dir/torrent"
}

# free_port: one that may well be free
free_port() { awk -v seed="$$$attempt" 'BEGIN { srand(seed); print 20000 + int(rand() * 12000) }'; }

# serve_nginx ROOT: two workers, sendfile; sets nginx_addr
serve_nginx() {
    mkdir -p "$dir/nginx"
    user=
    [ "$(id -u)" != 0 ] || user='user root;'
    for attempt in 1 2 3 4 5; do
        port=$(free_port)
        {
            echo "daemon off; worker_processes 2; error_log stderr crit; pid nginx.pid; $user"
            echo 'events { worker_connections 512; }'
            echo 'http { access_log off; sendfile on; keepalive_requests 1000000000;'
            for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $dir/nginx/$kind;"; done
            echo "server { listen 127.0.0.1:$port; root $1; } }"
        } >"$dir/nginx/nginx.conf"
        nginx -e stderr -p "$dir/nginx" -c "$dir/nginx/nginx.conf" &
        pid=$!
        nginx_addr=127.0.0.1:$port
        # Its port may be another's, then it ends by itself.
        while kill -0 "$pid" 2>/dev/null; do
            if [ -s "$dir/nginx/nginx.pid" ] && curl -s -o /dev/null "http://$nginx_addr/"; then
                started="$started $pid"
                return
            fi
            sleep 0.05
        done
    done
    echo "$0: nginx does not start" >&2
    exit 1
}
