# shellcheck shell=bash
# What bash completes for psync and its links; needs nothing but bash.

# Files that begin as $1 does, or directories where $2 is -d; each with $3 before it.
_psync_files() {
    local name
    while IFS= read -r name; do
        COMPREPLY+=("$3$name")
    done < <(compgen "${2:--f}" -- "$1")
    # With names in quotes, and a slash after directories. Only bash itself, while it completes, takes it.
    compopt -o filenames 2> /dev/null
}

# Words of $2 that begin as $1 does.
_psync_words() {
    local word
    for word in $2; do
        [[ $word != "$1"* ]] || COMPREPLY+=("$word")
    done
}

_psync() {
    local command=${COMP_WORDS[0]##*/} first=1 current=${COMP_WORDS[COMP_CWORD]} before='' prefix='' inline=''
    local options i
    COMPREPLY=()
    case $command in
        psync-*) command=${command#psync-} ;;
        *)
            if ((COMP_CWORD == 1)); then
                case $current in
                    -*) _psync_words "$current" '-h --help -V --version' ;;
                    *) _psync_words "$current" 'export server get' ;;
                esac
                return
            fi
            command=${COMP_WORDS[1]} first=2
            ;;
    esac
    case $command in
        export) options='-d --dir --root --no-store --no-sync' ;;
        server) options='-d --dir --file --peers --lan --max-conns --timeout -v --verbose' ;;
        get)
            options='-o --output --in-place -d --dir -k --keep --seed --servers --peers --lan -m --mirror
                --spread -j --jobs --timeout --connect-timeout --retry -q --quiet -v --verbose --stats'
            ;;
        *) return ;;
    esac
    options+=' -h --help -V --version'

    for ((i = first; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            [[ $command == server ]] || _psync_files "$current" -f ''
            return
        fi
    done
    # The option whose value this word may be: --seed VALUE, or --seed=VALUE, which bash has cut into
    # three words unless it was told not to.
    ((COMP_CWORD == first)) || before=${COMP_WORDS[COMP_CWORD - 1]}
    if [[ $current == = ]]; then
        current='' inline=y
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]} inline=y
    elif [[ $current == --*=* ]]; then
        before=${current%%=*} prefix=$before= current=${current#*=} inline=y
    fi
    case $command,$before in
        *,-d | *,--dir) _psync_files "$current" -d "$prefix" ;;
        *,--file | *,-o | *,--output | *,--seed | *,--servers | server,--peers)
            _psync_files "$current" -f "$prefix"
            ;;
        *,--max-conns | *,--timeout | *,--connect-timeout | *,-j | *,--jobs | *,--retry | *,-m | *,--mirror) ;;
        *) # No option's value, unless --lan's address.
            case $inline,$command,$current in
                y,*) ;;
                ,*,-*) _psync_words "$current" "$options" ;;
                ,server,*) ;;
                *) _psync_files "$current" -f '' ;;
            esac
            ;;
    esac
}

complete -F _psync psync psync-export psync-server psync-get
