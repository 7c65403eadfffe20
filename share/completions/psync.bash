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

# What the option $2 of the command $1 takes, as kind: a directory, a file, any other word, or nothing.
_psync_takes() {
    case $1,$2 in
        *,-d | *,--dir) kind=-d ;;
        server,--file | server,--peers | get,-o | get,--output | get,--seed | get,--servers) kind=-f ;;
        server,--max-conns | *,--timeout | get,--connect-timeout | get,-j | get,--jobs | get,--retry | \
            get,-m | get,--mirror) kind=word ;;
        *) kind='' ;;
    esac
}

# The same of -abc, joined letters, as kind: of the first that takes anything. What stands up to it is head.
_psync_joined() {
    local at
    for ((at = 1; at < ${#2}; at++)); do
        head=${2:0:at+1}
        _psync_takes "$1" "-${2:at:1}"
        [[ ! $kind ]] || return
    done
}

_psync() {
    local command=${COMP_WORDS[0]##*/} first=1 current=${COMP_WORDS[COMP_CWORD]} prefix='' inline=''
    local options i word kind='' head=''
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
            options='-o --output --in-place -n --dry-run -d --dir -k --keep --seed --servers --peers --lan -m --mirror
                --spread -j --jobs --timeout --connect-timeout --retry -q --quiet -v --verbose --stats'
            ;;
        *) return ;;
    esac
    options+=' -h --help -V --version'

    # In order, as psync reads them: kind is what the word before takes, if it still takes it; inline, that
    # it does within its own word, which bash has cut at the = unless it was told not to.
    for ((i = first; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == = && ${COMP_WORDS[i - 1]} == --?* && ! $inline ]]; then
            inline=y
        elif [[ $kind || $inline ]]; then
            kind='' inline=''
        else
            case $word in
                --)
                    [[ $command == server ]] || _psync_files "$current" -f ''
                    return
                    ;;
                --*) _psync_takes "$command" "$word" ;;
                -?*)
                    _psync_joined "$command" "$word"
                    [[ $word == "$head" ]] || kind=''
                    ;;
            esac
        fi
    done
    if [[ $current == = && $COMP_CWORD -gt $first && ${COMP_WORDS[COMP_CWORD - 1]} == --?* && ! $inline ]]; then
        current='' inline=y
    elif [[ ! $kind && ! $inline && $current == --*=* ]]; then
        prefix=${current%%=*}= current=${current#*=} inline=y
        _psync_takes "$command" "${prefix%=}"
    elif [[ ! $kind && ! $inline && $current == -[!-]?* ]]; then
        _psync_joined "$command" "$current"
        prefix=$head current=${current#"$head"} inline=y
    fi
    case $kind,$inline,$command,$current in
        -*) _psync_files "$current" "$kind" "$prefix" ;;
        # No more than a word, or --lan's address.
        word,* | ,y,*) ;;
        *,-*) _psync_words "$current" "$options" ;;
        *,server,*) ;;
        *) _psync_files "$current" -f '' ;;
    esac
}

complete -F _psync psync psync-export psync-server psync-get
