#!/bin/sh
# Brings the programs that tests/programs lists under these sets: setup.sh SET...
#
# As root, or where sudo asks for no password, and with apt-get: installs what is missing, and says so in one
# line. Otherwise, or where that failed: one line says what is missing and what installs it. A missing program is an
# error only where the variable CI is set, since each test that needs it is skipped.
set -eu
[ $# -gt 0 ] || { echo 'usage: tests/setup.sh SET...' >&2; exit 2; }
here=$(dirname "$0")
for set in "$@"; do
    grep -q "^$set " "$here/programs" || { echo "tests/programs has no set $set" >&2; exit 2; }
done

# As the tests find it: daemons live in sbin, which an ordinary user's PATH leaves out.
has() ( # PROGRAM or FILE
    case $1 in /*) [ -e "$1" ]; exit ;; esac
    set -f
    IFS=:
    for dir in $PATH:/usr/local/sbin:/usr/sbin:/sbin; do
        if [ -f "$dir/$1" ]; then exit 0; fi
    done
    exit 1
)

find_missing() { # SET...
    programs=
    packages=
    while read -r set program package; do
        case " $* " in *" $set "*) ;; *) continue ;; esac
        has "$program" && continue
        case "$programs " in *" $program "*) ;; *) programs="$programs $program" ;; esac
        case "$packages " in *" $package "*) ;; *) packages="$packages $package" ;; esac
    done <"$here/programs"
}

sudo=
[ "$(id -u)" = 0 ] || sudo='sudo -n'

may_install() {
    command -v apt-get >/dev/null && { [ -z "$sudo" ] || $sudo true 2>/dev/null; }
}

find_missing "$@"
[ -n "$programs" ] || exit 0
if may_install; then
    echo "Set-up installs what the tests need:$packages"
    # shellcheck disable=SC2086
    $sudo sh "$here/install.sh" $packages || :
    find_missing "$@"
    [ -n "$programs" ] || exit 0
fi
echo "Missing:$programs. To install on Debian: ${sudo:+sudo }apt-get install$packages" >&2
[ -z "${CI:-}" ]
