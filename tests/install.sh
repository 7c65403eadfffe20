#!/bin/sh
# Installs Debian packages for tests/setup.sh, as root: install.sh PACKAGE... Prints only why that failed.
#
# No service of theirs starts, neither now nor at the next boot. It asks nothing, removes no package, and waits for
# a limited time only where the network is silent or another program holds the package database.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1

policy=/usr/sbin/policy-rc.d
mark='# Of psync, tests/install.sh: while that runs, no package starts a service.'
own=
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"; [ -z "$own" ] || rm -f "$policy"' EXIT
trap 'exit 1' HUP INT TERM

# One at a time, since the first to end removes the policy. A lock of the directory leaves no file.
exec 9</usr/sbin
flock -w 600 9 || { echo 'set-up: another one is at work' >&2; exit 1; }

# Packages ask it before they start a service; 101 forbids that. A set-up that was killed has left its own.
if [ ! -e "$policy" ] || grep -qxF "$mark" "$policy"; then
    own=yes
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi

get() { # SECONDS WORDS...: apt-get, for so long at most; 0 is no limit
    limit=$1
    shift
    timeout --foreground "$limit" apt-get -qy -o Acquire::Retries=1 -o Acquire::http::Timeout=15 \
        -o Acquire::https::Timeout=15 -o DPkg::Lock::Timeout=60 -o Dpkg::Options::=--force-confold \
        "$@" </dev/null >>"$scratch/log" 2>&1 9>&-
}

install() { # PACKAGE...
    # Where a list cannot be fetched, an older one may do.
    get 120 update || :
    # Only the download may end half-way.
    get 600 install --no-install-recommends --no-remove --download-only "$@" &&
        get 0 install --no-install-recommends --no-remove --no-download "$@"
}

services() {
    find /lib/systemd/system/ /etc/init.d/ -maxdepth 1 ! -type d 2>/dev/null | sort
}

# Packages enable their services for the next boot. What systemd itself boots with stays.
disable() { # FILE
    name=${1##*/}
    if dpkg-query -L systemd 2>/dev/null | grep -q "/$name\$"; then return; fi
    case $1 in
        /etc/init.d/*) update-rc.d "$name" disable ;;
        *) if [ -d /run/systemd/system ]; then systemctl disable --now "$name"
            elif command -v systemctl; then systemctl disable "$name"
            else deb-systemd-helper disable "$name"; fi ;;
    esac >/dev/null 2>&1 || :
}

services >"$scratch/before"
status=0
install "$@" || status=1
services | comm -13 "$scratch/before" - | while read -r service; do disable "$service"; done
if [ "$status" != 0 ]; then
    # What went wrong first, and what in the end.
    { grep '^[EW]:' "$scratch/log" || tail -n 2 "$scratch/log"; } | sed '1b; $!d' | sed 's/^/set-up: /' >&2
fi
exit "$status"
