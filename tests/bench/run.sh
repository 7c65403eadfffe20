#!/bin/sh
# Runs the benchmarks, then writes results.md and results.svg beside this script. ONLY names those to
# run ("get link"); then nothing is written, for the files tell of one whole run.
set -eu
here=$(dirname "$0")
: "${PSYNC:=target/release/psync}" "${N:=5}" "${MIB:=256}"
all='export get link delta server'

RESULTS=$(mktemp)
export RESULTS PSYNC N MIB
trap 'rm -f "$RESULTS"' EXIT
trap 'exit 1' HUP INT TERM
for part in ${ONLY:-$all}; do
    case " $all " in
    *" $part "*) sh "$here/$part.sh" ;;
    *)
        echo "$0: no benchmark $part; there are $all" >&2
        exit 2
        ;;
    esac
done
[ -z "${ONLY:-}" ] || exit 0

# version NAME COMMAND...: where it is installed
PATH=$PATH:/usr/sbin
version() {
    command -v "$2" >/dev/null || return 0
    name=$1
    shift
    printf ' %s %s,' "$name" "$("$@" 2>&1 | sed -n '1s/[^0-9]*\([0-9][0-9.]*\).*/\1/p')"
}

cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
memory=$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)
peers=$(
    version coreutils split --version
    version curl curl --version
    version nginx nginx -v
    version openssl openssl version
    version wrk wrk -v
    version rsync rsync --version
    libtorrent='import libtorrent; print(libtorrent.__version__)'
    ! /usr/bin/python3 -c "$libtorrent" >/dev/null 2>&1 || version libtorrent /usr/bin/python3 -c "$libtorrent"
    version zsync zsync -V
    version casync casync --version
    version bita bita --version
)
cat >"$here/results.md" <<END
# What \`make bench\` measured

$(date -u +%F), on ${cpu:-$(uname -m)}, $(nproc) processors, $memory GiB, $(uname -sr); all files in memory.
Each figure is the median of at most $N alternating runs (MIB=$MIB); psync's come with the peak of its
memory. The ratio is psync's figure by the other's.

Beside $("$PSYNC" --version):${peers%,}.

| what | psync | beside | its figure | ratio | target |
|---|---|---|---|---|---|
END
awk -F '\t' '
    $1 == "job" { printf "| **%s** | | | | | |\n", $2 }
    $1 == "row" {
        gsub(/\|/, "\\|")
        printf "| %s | %s | %s | %s | %s | %s |\n", $3, $4, $5, $6, $7, $8
    }' "$RESULTS" >>"$here/results.md"
awk -f "$here/plot.awk" "$RESULTS" >"$here/results.svg"
echo
echo "written: $here/results.md, $here/results.svg"
