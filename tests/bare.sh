#!/bin/sh
# Holds what `make test` does on a machine that lacks programs: make test-bare. It runs a few tests where the
# directories of daemons are empty and PATH leads only to what make and cargo take, so that apt-get, nginx and busybox
# cannot be found. Two of these tests need nginx, one of them waiting for a panic, one busybox, and one nothing.
set -eu
cd "$(dirname "$0")/.."
TESTS='nginx_is_a_server a_daemon_that_does_not_start_fails busybox_httpd_is_a_server the_version_is_one_line'

if [ "${1:-}" != inside ]; then
    cargo test --locked --no-run
    user=$([ "$(id -u)" = 0 ] || echo --map-root-user)
    # shellcheck disable=SC2086
    exec unshare --mount $user sh tests/bare.sh inside
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
for program in make cargo rustc sh sed find id env mktemp rm cut sort wc paste dirname cat grep; do
    ln -s "$(command -v "$program")" "$scratch/bin/"
done
for sbin in /usr/local/sbin /usr/sbin /sbin; do
    if [ -d "$sbin" ]; then mount -t tmpfs none "$sbin"; fi
done
PATH=$scratch/bin
# Another make's words are not for this one.
unset MAKEFLAGS MAKELEVEL

fail() { # WHAT
    cat "$scratch/out"
    echo "tests/bare.sh: $1" >&2
    exit 1
}
# Status and output of a command, with CI set to this.
with_ci() { # VALUE COMMAND
    ci=$1
    shift
    status=0
    env CI="$ci" "$@" >"$scratch/out" 2>&1 || status=$?
}
told() { # PATTERN
    grep -q -e "$1" "$scratch/out" || fail "nothing like '$1' was said"
}

with_ci '' make test ONLY="$TESTS"
[ "$status" = 0 ] || fail "status $status for a person"
told '^Missing: .*nginx busybox .*\. To install on Debian: apt-get install .*nginx-light busybox '
told '^test support::harness::a_daemon_that_does_not_start_fails - should panic \.\.\. ok$'
told '^test docs::help::the_version_is_one_line \.\.\. ok$'
told '^SKIPPED together::interop::nginx_is_a_server: nginx is missing$'
last=$(sed -n '$p' "$scratch/out")
[ "$last" = 'Skipped tests: 3, for lack of busybox nginx. To install on Debian: apt-get install busybox nginx-light' ] ||
    fail 'the last line tells otherwise'

with_ci true make test ONLY="$TESTS"
[ "$status" != 0 ] || fail 'status 0 in CI'
told '^Missing: .*nginx busybox '
if grep -q '^cargo test\|^running' "$scratch/out"; then fail 'set-up let CI go on'; fi

# shellcheck disable=SC2086
with_ci true cargo test --locked --test it -- $TESTS
[ "$status" != 0 ] || fail 'status 0 of tests in CI'
told 'nginx is missing: apt-get install nginx-light$'
told 'busybox is missing: apt-get install busybox$'
told '^test result: FAILED\. 1 passed; 3 failed;'
if grep -q '^SKIPPED' "$scratch/out"; then fail 'CI skips'; fi

echo 'Where programs are missing, make test skips and counts; in CI it fails.'
