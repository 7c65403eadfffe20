#!/bin/sh
# server beside nginx (two workers, sendfile): random blocks of one directory in memory, on connections
# that are kept and on one for each request; out of the whole file; by POST /blocks, a thousand a
# request. Then the server's memory with 1,000 connections that have asked once and are idle.
# SECONDS_EACH: the length of a run.
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
: "${SECONDS_EACH:=3}"
need wrk curl nginx
# shellcheck disable=SC3045 # dash and busybox have it
ulimit -S -n 4096 2>/dev/null || echo "few descriptors: 1,000 connections may not fit" >&2

random_file file $((MIB * 1024))
"$PSYNC" export --no-sync -d "$dir/blocks" "$dir/file" >"$dir/list"

cat >"$dir/get.lua" <<END
local asks, n = {}, 0
function init()
    for hash in io.lines("$dir/list") do
        n = n + 1
        asks[n] = wrk.format("GET", "/" .. hash)
    end
end
function request() return asks[math.random(n)] end
END
sed 's|"/" .. hash)|"/" .. hash, { Connection = "close" })|' "$dir/get.lua" >"$dir/close.lua"
# As many lines as a request may have; the file's own order, as get asks.
BATCH=1024
cat >"$dir/post.lua" <<END
local asks, n = {}, 0
function init()
    local lines = {}
    local function ask()
        n = n + 1
        asks[n] = wrk.format("POST", "/blocks", nil, table.concat(lines, "\n") .. "\n")
        lines = {}
    end
    for hash in io.lines("$dir/list") do
        lines[#lines + 1] = hash
        if #lines == $BATCH then ask() end
    end
end
function request() return asks[math.random(n)] end
END
# The first answer of each connection at once, then nothing for a long time.
cat "$dir/get.lua" - >"$dir/idle.lua" <<'END'
local asked = 0
function delay()
    asked = asked + 1
    return asked <= 100 and 0 or 3600000
end
END

serve_psync --max-conns 1200
main_server=$server main_addr=$addr
serve_psync --file "$dir/file"
file_addr=$addr
serve_nginx "$dir/blocks"

# load NAME SCRIPT CONNECTIONS ADDR BLOCKS: one run, so many blocks a request; the slowest hundredth of
# the answers as NAME-p99
load() {
    wrk -t"$(($3 > 1 ? 2 : 1))" -c"$3" -d"${SECONDS_EACH}s" --latency -s "$dir/$2.lua" "http://$4" >"$dir/wrk"
    if grep -E 'Non-2xx|Socket errors' "$dir/wrk" >&2; then exit 1; fi
    record "$1" /s "$(sed -n 's/^Requests\/sec: *//p' "$dir/wrk" | awk -v blocks="$5" '{ print $1 * blocks }')"
    # 950.00us, 1.20ms or 1.10s
    record "$1-p99" ms "$(awk '$1 == "99%" { print $2 * ($2 ~ /us$/ ? 0.001 : $2 ~ /ms$/ ? 1 : 1000) }' "$dir/wrk")"
}
for _ in $(runs); do
    for connections in 1 8 64; do
        load "psync-$connections" get "$connections" "$main_addr" 1
        load "nginx-$connections" get "$connections" "$nginx_addr" 1
    done
    for connections in 8 64; do
        load "psync-close-$connections" close "$connections" "$main_addr" 1
        load "nginx-close-$connections" close "$connections" "$nginx_addr" 1
    done
    load psync-file get 8 "$file_addr" 1
    load psync-post post 8 "$main_addr" "$BATCH"
    load psync-file-post post 8 "$file_addr" "$BATCH"
done
for who in psync nginx; do
    for connections in 1 8 64; do
        label "$who-$connections" "$who, $connections kept connections"
        label "$who-$connections-p99" "$who, $connections kept connections"
        label "$who-close-$connections" "$who, $connections at once, one for each request"
    done
done
label psync-file '--file, 8 kept connections'
label psync-post 'POST /blocks, 8 kept connections'
label psync-file-post 'POST /blocks of --file, 8 kept connections'

job "Blocks a second, at random of $MIB MiB (more is better)"
for connections in 1 8 64; do beside "psync-$connections" "nginx-$connections" least 1.2; done
for connections in 8 64; do beside "psync-close-$connections" "nginx-close-$connections" least 1; done
for way in file post file-post; do beside "psync-$way" nginx-8; done
bars psync-file-post psync-post psync-file psync-8 nginx-8 psync-64 nginx-64 psync-close-64 nginx-close-64

job 'The slowest hundredth of the answers, from'
for connections in 1 8 64; do beside "psync-$connections-p99" "nginx-$connections-p99" most 1; done

server=$main_server
job "The server's memory"
peak() { mib "$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$server/status")"; }
record psync-busy MiB "$(peak)"
label psync-busy 'at most in these runs'
within psync-busy

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
record psync-idle MiB "$(peak)"
label psync-idle "at most with $idle idle connections"
within psync-idle most 24
