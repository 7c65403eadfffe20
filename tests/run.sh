#!/bin/sh
# What `make test`, `test-root`, `test-cross` and `test-peers` do: run.sh test|root|cross|peers, the tests of these
# names ONLY, or all. First set-up. Then each command, also where one before it failed. The last lines say what
# failed, and what was skipped for lack of a program.
set -eu
cd "$(dirname "$0")/.."

: "${ONLY:=}"
failed=
sudo=
[ "$(id -u)" = 0 ] || sudo='sudo '
PSYNC_TESTS_SKIPPED=$(mktemp)
export PSYNC_TESTS_SKIPPED
trap 'rm -f "$PSYNC_TESTS_SKIPPED"' EXIT
trap 'exit 1' HUP INT TERM

run() { # COMMAND
    echo "$*"
    "$@" || failed="$failed${failed:+; }$*"
}

# Each of NAMES must be that of a test that COMMAND lists: libtest runs none for a name of none, and is content.
expect_tests() { # NAMES COMMAND
    names=$1
    shift
    # What does not build is told by what follows.
    [ -n "$names" ] && tests=$("$@" --list 2>/dev/null) || return 0
    for name in $names; do
        case $tests in *"$name"*) ;; *) failed="$failed${failed:+; }no test is named $name" ;; esac
    done
}

# What the feature tls may change: URLs, requests, answers.
TLS_TESTS='get::answers:: get::messages:: get::mirror:: get::servers:: docs::help:: together::smoke::'

# What strangers send, mutated, so many times as here or a multiple: with one seed the same everywhere.
FUZZ='head:1000000 hashlist:40000 body:100000 answer:500'

run_fuzz() { # TIMES SEED OPTION...
    times=$1 seed=$2
    shift 2
    for target in $FUZZ; do
        run cargo run --locked --quiet "$@" --manifest-path tests/fuzz/Cargo.toml --bin fuzz \
            --target-dir "${CARGO_TARGET_DIR:-target}/fuzz" -- "${target%:*}" "$((times * ${target#*:}))x" "$seed"
    done
}

# shellcheck disable=SC2086
run_test() {
    expect_tests "$ONLY" cargo test --locked --
    run cargo test --locked --no-fail-fast ${ONLY:+-- $ONLY}
    [ -z "$ONLY" ] || return 0
    run_fuzz 1 0
    run cargo test --locked --features tls --bin psync
    expect_tests "$TLS_TESTS" cargo test --locked --features tls --test it --
    run cargo test --locked --features tls --test it -- $TLS_TESTS
}

# shellcheck disable=SC2086
run_root() {
    if [ "$(id -u)" = 0 ]; then skip=; else
        skip='--skip ::root_'
        echo 'Not root, so these are skipped (they mount, chroot or use up what others need):'
        cargo test --locked --quiet --test it -- --ignored --list | sed -n '/::root_/s/: test$//p'
    fi
    [ -n "$ONLY" ] || run_fuzz 10 1 --release
    expect_tests "$ONLY" cargo test --locked --test it -- --ignored
    run cargo test --locked --test it -- --ignored --test-threads=1 --skip ::cross_ --skip ::peers_ $skip $ONLY
}

# 32 bits, the one with the other order of bytes and error numbers of its own.
EMULATED='armv7-unknown-linux-gnueabihf mips-unknown-linux-gnu'

# shellcheck disable=SC2086
run_cross() {
    for target in $EMULATED; do
        # The tests tell of a binary that is not there: it fails them, or skips them where a compiler is missing.
        rm -f "${CARGO_TARGET_DIR:-target}/$target/release/psync"
        sh tests/static.sh "$target" || :
    done
    expect_tests "${ONLY:-::cross_}" cargo test --locked --test it -- --ignored
    run cargo test --locked --test it -- --ignored ${ONLY:-::cross_}
}

# shellcheck disable=SC2086
run_peers() {
    expect_tests "${ONLY:-::peers_}" cargo test --locked --test it -- --ignored
    run cargo test --locked --test it -- --ignored ${ONLY:-::peers_}
}

column() { # NUMBER
    cut -f "$1" "$PSYNC_TESTS_SKIPPED" | sort -u | paste -sd ' '
}

summary() {
    if [ -s "$PSYNC_TESTS_SKIPPED" ]; then
        count=$(cut -f 1 "$PSYNC_TESTS_SKIPPED" | sort -u | wc -l)
        echo "Skipped tests: $count, for lack of $(column 2)." \
            "To install on Debian: ${sudo}apt-get install $(column 3)"
    else
        echo 'No test was skipped for lack of a program.'
    fi
    [ -z "$failed" ] || { echo "FAILED: $failed"; exit 1; }
}

case ${1:-} in
    test | peers) sets="base $1" ;;
    root | cross) sets="base test $1" ;;
    *) echo 'usage: tests/run.sh test|root|cross|peers' >&2; exit 2 ;;
esac
# shellcheck disable=SC2086
sh tests/setup.sh $sets || exit
"run_$1"
summary
