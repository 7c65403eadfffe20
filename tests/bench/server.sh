#!/bin/sh
# server beside nginx (two workers, sendfile): random blocks of one directory in memory, keep-alive.
# Then the server's memory with 1,000 connections that have asked once and are idle.
# SECONDS_EACH: the length of a run.
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
: "${SECONDS_EACH:=5}"
need wrk curl
PATH=$PATH:/usr/sbin need nginx
# shellcheck disable=SC3045 # dash and busybox have it
ulimit -S -n 4096 2>/dev/null || echo "few descriptors: 1,000 connections may not fit" >&2

random_file
"$PSYNC" export --no-sync -d "$dir/blocks" "$dir/file" >"$dir/list"

cat >"$dir/random.lua" <<END
local asks, n = {}, 0
function init()
    for hash in io.lines("$dir/list") do
        n = n + 1
        asks[n] = wrk.format("GET", "/" .. hash)
    end
end
function request() return asks[math.random(n)] end
END
# The first answer of each connection at once, then nothing for a long time.
cat "$dir/random.lua" - >"$dir/idle.lua" <<'END'
local asked = 0
function delay()
    asked = asked + 1
    return asked <= 100 and 0 or 3600000
end
END

serve_psync --max-conns 1200
serve_nginx "$dir/blocks"

# load NAME CONNECTIONS ADDR: one run; its requests a second go to NAME.CONNECTIONS
load() {
    wrk -t2 -c"$2" -d"${SECONDS_EACH}s" -s "$dir/random.lua" "http://$3" >"$dir/wrk"
    if grep -E 'Non-2xx|Socket errors' "$dir/wrk" >&2; then exit 1; fi
    sed -n 's/^Requests\/sec: *//p' "$dir/wrk" >>"$dir/$1.$2"
}
for connections in 8 64; do
    for _ in $(runs); do
        load psync "$connections" "$addr"
        load nginx "$connections" "$nginx_addr"
    done
done

echo "random blocks of $MIB MiB, requests a second, medians of $N alternating runs of $SECONDS_EACH s"
for connections in 8 64; do
    ours=$(median "psync.$connections") theirs=$(median "nginx.$connections")
    printf '%3d connections: psync %9s   nginx %9s   ratio %s (at least 1)\n' "$connections" "$ours" "$theirs" \
        "$(ratio "$ours" "$theirs")"
done
kib() { sed -n "s/^$1:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$server/status"; }
echo "psync server after that: peak $(mib "$(kib VmHWM)") MiB"

# A fresh one, for its memory alone.
serve_psync --max-conns 1200
open_descriptors() { find "/proc/$server/fd" -type l | wc -l; }
before=$(open_descriptors)
# A hundred at a time: a thousand connections in one moment overflow the listener's backlog, and the
# kernel then waits seconds to repeat them.
for clients in 1 2 3 4 5 6 7 8 9 10; do
    wrk -t1 -c100 -d60s -s "$dir/idle.lua" "http://$addr" >/dev/null &
    started="$started $!"
    for _ in $(seq 100); do
        idle=$(($(open_descriptors) - before))
        [ "$idle" -lt "${clients}00" ] || break
        sleep 0.05
    done
done
# The answers of the last of them.
sleep 1
threads=$(find "/proc/$server/task" -maxdepth 1 -mindepth 1 | wc -l)
echo "psync server with $idle idle connections, $threads threads: now $(mib "$(kib VmRSS)") MiB, peak $(mib "$(kib VmHWM)") MiB (1000: under 24)"
