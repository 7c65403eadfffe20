# What fish completes for psync and its links.

# Whether the command line is one of this command: psync COMMAND, or psync-COMMAND. With no argument,
# whether it has no command yet.
function __psync_is
    set -l words (commandline -opc)
    while string match -qr '^\w+=' -- $words[1]
        set -e words[1]
    end
    set -l linked (string match -r '[^/]*$' -- $words[1] | string replace -f psync- '')
    set -l command $linked $words[2]
    test "$command[1]" = "$argv[1]"
end

# What fish itself has for this knows nothing of --dir=DIR and -dDIR.
function __psync_directories
    __fish_complete_directories (commandline -ct | string replace -r '^(--dir=|-[^-d]*d)' '')
end

for program in psync psync-export psync-server psync-get
    complete -c $program -e
    complete -c $program -s h -l help -d 'Print help'
    complete -c $program -s V -l version -d 'Print name and version'

    complete -c $program -n __psync_is -f
    complete -c $program -n __psync_is -a export -d 'Cut a file into blocks and print its hashlist'
    complete -c $program -n __psync_is -a server -d 'Serve a block directory, and whole files, over HTTP'
    complete -c $program -n __psync_is -a get -d 'Put a file together from its hashlist'

    set -l export '__psync_is export'
    complete -c $program -n $export -s d -l dir -xa '(__psync_directories)' -d 'Block directory'
    complete -c $program -n $export -l root -d 'Store the list too, and print the root alone'
    complete -c $program -n $export -l no-store -d 'Only print'
    complete -c $program -n $export -l no-sync -d 'Leave it to the system when blocks reach the disk'

    set -l server '__psync_is server'
    complete -c $program -n $server -f
    complete -c $program -n $server -s d -l dir -xa '(__psync_directories)' -d 'Block directory'
    complete -c $program -n $server -l file -rF -d 'Serve the blocks of a file too'
    complete -c $program -n $server -l peers -rF -d 'A list of other servers to tell'
    complete -c $program -n $server -l lan -d 'Answer get --lan in the local network'
    complete -c $program -n $server -l max-conns -x -d 'Connections at once [512]'
    complete -c $program -n $server -l timeout -x -d 'Seconds for a request or an answer [15]'
    complete -c $program -n $server -s v -l verbose -d 'A line on standard error for each request'

    set -l get '__psync_is get'
    complete -c $program -n $get -s o -l output -rF -d 'Write a file, all or nothing'
    complete -c $program -n $get -l in-place -d 'Update a regular file in place too'
    complete -c $program -n $get -s n -l dry-run -d 'Only count what is here and what is missing'
    complete -c $program -n $get -s d -l dir -xa '(__psync_directories)' -d 'Block directory'
    complete -c $program -n $get -s k -l keep -d 'Keep what is fetched in the block directory'
    complete -c $program -n $get -l seed -rF -d 'Take blocks from a file'
    complete -c $program -n $get -l servers -rF -d 'More servers, from a file'
    complete -c $program -n $get -l peers -d 'Ask servers for those that they know'
    complete -c $program -n $get -l lan -d 'Ask the local network for servers'
    complete -c $program -n $get -s m -l mirror -x -d 'A plain copy of the whole file'
    complete -c $program -n $get -l spread -d 'Begin each request at another server'
    complete -c $program -n $get -s j -l jobs -x -d 'Requests under way at once [8]'
    complete -c $program -n $get -l timeout -x -d 'Seconds without an answer [30]'
    complete -c $program -n $get -l connect-timeout -x -d 'Seconds without a connection [5]'
    complete -c $program -n $get -l retry -x -d 'More rounds for what failed [2]'
    complete -c $program -n $get -s q -l quiet -d 'Errors only'
    complete -c $program -n $get -s v -l verbose -d 'Name each server given up, and sum up at the end'
    complete -c $program -n $get -l stats -d 'Sum up in one line, for scripts'
end
