# shellcheck shell=sh
# Shared by the benchmarks: a private directory in memory, alternating runs, medians, servers that end
# with the script. Measures, never judges: a busy machine is no fault.
#
# PSYNC: the binary. N: runs of each contestant. MIB: the size of the random file.
set -eu
: "${PSYNC:=target/release/psync}" "${N:=5}" "${MIB:=256}"

need() {
    for program; do
        command -v "$program" >/dev/null || {
            echo "$0: $program is missing; Debian: apt-get install wrk nginx-light curl time" >&2
            exit 1
        }
    done
}
need "$PSYNC" /usr/bin/time

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

runs() { seq "$N"; }

random_file() { head -c "$((MIB * 1048576))" /dev/urandom >"$dir/file"; }

# measure NAME OUTPUT COMMAND...: one run; its seconds go to NAME.s, its peak KiB to NAME.k
measure() {
    name=$1 output=$2
    shift 2
    from=$(date +%s%N)
    /usr/bin/time -a -o "$dir/$name.k" -f %M "$@" >"$output"
    to=$(date +%s%N)
    echo "$from $to" | awk '{ printf "%.3f\n", ($2 - $1) / 1e9 }' >>"$dir/$name.s"
}

# median NAME.s
median() { sort -n "$dir/$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# ratio A B
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

mib() { awk -v k="$1" 'BEGIN { printf "%.1f", k / 1024 }'; }

# serve_psync OPTION...: sets server (process id) and addr
serve_psync() {
    [ -p "$dir/listening" ] || mkfifo "$dir/listening"
    "$PSYNC" server -d "$dir/blocks" "$@" 127.0.0.1:0 >"$dir/listening" &
    server=$!
    started="$started $server"
    exec 3<"$dir/listening"
    # shellcheck disable=SC2034 # for the scripts
    read -r _ _ addr <&3
}

# serve_nginx ROOT: two workers, sendfile; sets nginx_addr
serve_nginx() {
    mkdir -p "$dir/nginx"
    user=
    [ "$(id -u)" != 0 ] || user='user root;'
    for attempt in 1 2 3 4 5; do
        port=$(awk -v seed="$$$attempt" 'BEGIN { srand(seed); print 20000 + int(rand() * 12000) }')
        {
            echo "daemon off; worker_processes 2; error_log stderr crit; pid nginx.pid; $user"
            echo 'events { worker_connections 512; }'
            echo 'http { access_log off; sendfile on; keepalive_requests 1000000000;'
            for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $dir/nginx/$kind;"; done
            echo "server { listen 127.0.0.1:$port; root $1; } }"
        } >"$dir/nginx/nginx.conf"
        PATH=$PATH:/usr/sbin nginx -e stderr -p "$dir/nginx" -c "$dir/nginx/nginx.conf" &
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
