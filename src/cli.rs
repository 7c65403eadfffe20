//! The command line: the help texts, which define the options, and the way from words to typed options.
//! Only this file uses `pico_args`; how people type options is `cli/split.rs`.
//!
//! It takes words and a closure for the environment, so that tests need no process. It opens nothing.

mod split;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::mem;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::seconds::Seconds;
use crate::store::BlockDir;
use crate::{export, get, server};

const HELP: &str = concat!(
    "psync ",
    env!("CARGO_PKG_VERSION"),
    " - distributes files as blocks between boxes that need not
trust each other

Usage:
    psync export [-d DIR] [--root] [--no-store] [--no-sync] [FILE]
    psync server [-d DIR] [--file FILE]... [--peers FILE] [--lan]
                 [--max-conns N] [--timeout SECS] [-v] ADDR...
    psync get [OPTIONS] [SERVER]... HASHLIST

    export   cuts FILE into blocks of 4096 bytes, each stored under its SHA-256,
             and prints the hashes: the hashlist
    server   serves the blocks, and those of whole files, over HTTP
    get      fetches the blocks of a hashlist, or of a root that stands for one,
             from whoever has them, believes each only after hashing it, and
             puts the file together

Example, a file from box A to box B:
    A$ psync export disk.img > disk.list
    A$ psync server :8080
    B$ psync get boxA:8080 disk.list > disk.img    # carry disk.list there first

The hashlist is the only thing to be trusted: carry it by a way that you trust.
Or carry one hash: with --root the list is stored too, and export prints the
root that stands for all of it, which get takes in place of a hashlist.

Options:
    -h, --help       this text; also of each command
    -V, --version    name and version

Options may stand anywhere among the words; -- ends them. Short ones may be
joined to each other and to a value: -qj8 is -q -j 8.

A link to this program named psync-export, psync-server or psync-get is that
command. The block directory is -d DIR, else $PSYNC_DIR, else
$HOME/.psync/blocks.

Exit codes: 0 done, every byte verified; 1 something on this machine failed;
2 usage, or a malformed hashlist or root; 3 some blocks could not be had.
"
);

const EXPORT_HELP: &str = "\
psync export - cuts a file into blocks and prints its hashlist

Usage: psync export [-d DIR] [--root] [--no-store] [--no-sync] [FILE]

FILE, or standard input where it is - or missing, is cut into blocks of 4096
bytes. Each is put into the block directory under its SHA-256, which is printed.
A hash is printed once its block is in place and would survive a power cut, so
whatever was printed is there. Blocks already there are compared, not rewritten;
a damaged one is put right. The same command after a failure goes on from there.

Options:
    -d, --dir DIR    the block directory, made where it is missing
                     [$PSYNC_DIR, else $HOME/.psync/blocks]
        --root       store the blocks of the hashlist too, and those of lists
                     above it, and print only the root: one hash for all
        --no-store   only print
        --no-sync    leave it to the system when blocks reach the disk
    -h, --help       this text
    -V, --version    name and version

Examples:
    psync export disk.img > disk.list
    psync export --root disk.img
";

const SERVER_HELP: &str = "\
psync server - serves a block directory, and whole files, over HTTP

Usage: psync server [-d DIR] [--file FILE]... [--peers FILE] [--lan]
                    [--max-conns N] [--timeout SECS] [-v] ADDR...

ADDR is HOST:PORT, [v6]:PORT, or :PORT for all interfaces; port 0 takes a free
one. \"listening on IP:PORT\" is printed for each socket once it accepts. A block
is at /HASH; it is hashed before it is sent, so a damaged one is never served.
POST /blocks with a hashlist of at most 1024 lines brings all these blocks.
The server only reads: blocks can be added and removed while it runs.

With --file the blocks of FILE, a file or a block device, are served from where
it lies, with no copy, and while it is still being read and hashed. That takes
10 bytes of memory a block: 2.5 MiB a GiB. A FILE that is changed or replaced is
read anew once it has been still for some seconds; meanwhile what is right of it
is served. Blocks that are not in a FILE come from the block directory.

Options:
    -d, --dir DIR        the block directory, which must exist where it is named
                         [$PSYNC_DIR, else $HOME/.psync/blocks]
        --file FILE      serve the blocks of FILE too (any number)
        --peers FILE     at /peers, for get --peers: FILE, more servers, one a
                         line, # comments; read at each request, 64 KiB of it
        --lan            answer get --lan in the local network, with the first
                         ADDR that it reaches. --lan=ADDR: by the interface that
                         has this IPv4 address
        --max-conns N    connections at once, 1 to 100000; at more, the one
                         longest without a whole request makes room [512]
        --timeout SECS   for a request's head from its first byte on, for its
                         body, and for an answer from the last byte taken on,
                         0.001 to 86400 [15]
    -v, --verbose        a line on standard error for each request: client,
                         request line, status, bytes of body, microseconds
    -h, --help           this text
    -V, --version        name and version

Examples, of a block directory, and of what psync get -o has written:
    psync server -d /srv/blocks :8080
    psync server --file /srv/disk.img :8080
";

const GET_HELP: &str = "\
psync get - puts a file together from its hashlist

Usage: psync get [OPTIONS] [SERVER]... HASHLIST

Each block of HASHLIST (a file, or - for standard input) is looked for at hand,
then asked of each SERVER in the order listed, and believed only after hashing.
The file is written to standard output, in order, and only ever verified bytes
of it; it ends at the first block that nobody has. A root, 64 hex digits (./NAME
for a list so named), is fetched in place of a HASHLIST and as safely, level by
level, and tells the size of the file beforehand. With -o, what is missing is
left out until the same command is run again. SERVER is HOST[:PORT] or
http://HOST[:PORT][/PATH]: a psync server, or any web server that serves a block
directory. A server that has not got a block, cannot be reached, is slow or
sends wrong bytes means that the next one is asked. A psync server is asked for
many blocks at once, as many as its line carries in half a second. $http_proxy
and $no_proxy are honoured. With no SERVER the file is put together from what is
at hand.

Output:
    -o, --output FILE    write FILE: all or nothing, resumable. It is put
                         together in FILE.part and renamed when complete; what
                         is right in either is not fetched. A block device is
                         updated in place, only the blocks that differ
        --in-place       with -o: update a regular FILE in place, no FILE.part
    -n, --dry-run        ask no server and write nothing: print blocks=N local=N
                         missing=N bytes=N. Exit 0 if nothing is missing and,
                         with -o, FILE is right and complete: else 3

Blocks at hand:
    -d, --dir DIR        block directory to look in first
                         [$PSYNC_DIR, else $HOME/.psync/blocks]
    -k, --keep           keep what is fetched in the block directory
        --seed FILE      take blocks from FILE, an older version say (any
                         number), and from its own hashlist those of a root's.
                         Its index takes 2.5 MiB of memory a GiB

Servers:
        --servers FILE   more servers, one a line, # comments; any number
        --peers          first ask each server whom it knows, and these for more
                         servers: 64 in all, --connect-timeout for each of both
                         steps; blocks are asked of them after those listed
        --lan            ask the local network for servers, half a second; they
                         come first, by no proxy. --lan=ADDR: by the interface
                         that has this IPv4 address
    -m, --mirror URL     a plain copy of the whole file on any web server, for
                         what no server gives (any number)
        --spread         begin each run of blocks at another server, for their
                         joint speed
    -j, --jobs N         requests under way at once, 1 to 256 [8]
        --timeout SECS   give a server up after so long without the head of an
                         answer, or the next block of it, 0.001 to 86400 [30]
        --connect-timeout SECS
                         and after so long without a connection [5]
        --retry N        more rounds over the servers for what failed, after 1,
                         2, 4 ... seconds (300 at most), 0 to 1000; one that
                         brought blocks does not count [2]

Messages:
    -q, --quiet          errors only
    -v, --verbose        name each server given up, and sum up at the end
        --stats          sum up at the end in one line, for scripts
    -h, --help           this text
    -V, --version        name and version

Exit codes: 0 every byte written and verified; 1 something on this machine
failed; 2 usage, or a malformed hashlist, root or servers file; 3 blocks could
not be had: the same command later goes on from there.

Examples, for a crontab, and for a download that is nowhere in blocks:
    psync get -o /srv/disk.img near:8080 far.example /srv/disk.list
    psync get -o disk.img -m http://mirror.example/disk.img disk.list
";

const VERSION: &str = concat!("psync ", env!("CARGO_PKG_VERSION"), "\n");

const EXPORT: &str = "export";
const SERVER: &str = "server";
const GET: &str = "get";

/// A server's connections at once: the default, and the maximum. More than a box has descriptors is a slip
/// of the finger.
const CONNECTIONS: usize = 512;
const MAX_CONNECTIONS: usize = 100_000;

/// Requests at once: the default, and the maximum. Each takes a thread and a connection to every server
/// that is asked.
const JOBS: usize = 8;
const MAX_JOBS: usize = 256;

/// More rounds over the servers: the default, and the maximum.
const RETRY: u32 = 2;
const MAX_RETRY: u32 = 1000;

/// Default timeouts. A server's is shorter: a slow client takes a place from other clients, and a
/// client that waits for a slow server takes nothing.
const SERVER_TIMEOUT: Seconds = Seconds(Duration::from_secs(15));
const GET_TIMEOUT: Seconds = Seconds(Duration::from_secs(30));
const CONNECT_TIMEOUT: Seconds = Seconds(Duration::from_secs(5));

/// The range of a timeout: more than a day is a slip of the finger.
const TIMEOUTS: RangeInclusive<Seconds> =
    Seconds(Duration::from_millis(1))..=Seconds(Duration::from_secs(86_400));

/// What the command line requests.
pub enum Command {
    /// Help or version.
    Print(&'static str),
    Export(export::Options),
    Server(server::Options),
    Get(get::Options),
}

/// Reads a whole command line, the program's name first.
///
/// # Errors
/// Exit code 2, naming the word that is wrong.
pub fn parse(
    words: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Command> {
    let mut words = words.into_iter();
    let program = words.next().unwrap_or_default();
    let mut words: Vec<OsString> = words.collect();
    let linked = Path::new(&program)
        .file_name()
        .and_then(OsStr::to_str)
        .and_then(|name| name.strip_prefix("psync-"));
    let command = match linked {
        Some(linked @ (EXPORT | SERVER | GET)) => linked.to_owned(),
        _ if words.is_empty() => {
            let problem = "a command is missing: export, server or get";
            return Err(Error::usage("", problem));
        }
        _ => words.remove(0).to_string_lossy().into_owned(),
    };
    let unknown = |kind, word| Err(Error::usage("", format!("unknown {kind} '{word}'")));
    match command.as_str() {
        EXPORT => read(EXPORT, EXPORT_HELP, parse_export, words, &env),
        SERVER => read(SERVER, SERVER_HELP, parse_server, words, &env),
        GET => read(GET, GET_HELP, parse_get, words, &env),
        "-h" | "--help" => Ok(Command::Print(HELP)),
        "-V" | "--version" => Ok(Command::Print(VERSION)),
        option if option.starts_with('-') => unknown("option", option),
        word => unknown("command", word),
    }
}

/// Reads the words of a command that has the options of its help.
fn read(
    command: &'static str,
    help: &'static str,
    parse: fn(&mut Words) -> Result<Command>,
    words: Vec<OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Command> {
    let split = split::split(words, &split::described(help));
    let mut words = Words {
        command,
        args: pico_args::Arguments::from_vec(split.options),
        operands: split.operands,
        env,
    };
    if words.flag("--help") {
        return Ok(Command::Print(help));
    }
    if words.flag("--version") {
        return Ok(Command::Print(VERSION));
    }
    if let Some(problem) = split.problem {
        return Err(words.usage(problem));
    }
    let command = parse(&mut words)?;
    let left = words.args.finish();
    debug_assert!(left.is_empty(), "in the help alone: {left:?}");
    Ok(command)
}

fn parse_export(words: &mut Words) -> Result<Command> {
    let dir = words.name("--dir", "-d")?;
    let mut operands = mem::take(&mut words.operands).into_iter();
    let input = operands.next().filter(|file| file != "-");
    let input = input.map(|file| words.path(file, "FILE")).transpose()?;
    if let Some(word) = operands.next() {
        return Err(words.usage(format_args!("unexpected word '{}'", word.display())));
    }
    let store = match words.flag("--no-store") {
        true => None,
        false => Some(words.block_dir(dir).ok_or_else(|| words.no_block_dir())?),
    };
    Ok(Command::Export(export::Options {
        input,
        store,
        durable: !words.flag("--no-sync"),
        root: words.flag("--root"),
    }))
}

fn parse_server(words: &mut Words) -> Result<Command> {
    let dir = words.name("--dir", "-d")?;
    // The fields are in the order of the checks.
    let options = server::Options {
        files: words.paths("--file")?,
        peers: words.paths("--peers")?.pop(),
        max_connections: words.number(
            "--max-conns",
            "a number",
            1..=MAX_CONNECTIONS,
            CONNECTIONS,
        )?,
        timeout: words
            .number("--timeout", "seconds", TIMEOUTS, SERVER_TIMEOUT)?
            .0,
        verbose: words.flag("--verbose"),
        lan: words.lan()?,
        addresses: words.addresses()?,
        dir_named: dir.is_some(),
        dir: words.block_dir(dir),
    };
    if options.dir.is_none() && options.files.is_empty() {
        return Err(words.no_block_dir());
    }
    Ok(Command::Server(options))
}

fn parse_get(words: &mut Words) -> Result<Command> {
    let dir = words.name("--dir", "-d")?;
    let Seconds(timeout) = words.number("--timeout", "seconds", TIMEOUTS, GET_TIMEOUT)?;
    let Seconds(connect_timeout) =
        words.number("--connect-timeout", "seconds", TIMEOUTS, CONNECT_TIMEOUT)?;
    let output = words.name("--output", "-o")?;
    let output = output.filter(|output| output.as_os_str() != "-");
    let seeds = words.paths("--seed")?;
    let server_lists = words.paths("--servers")?;
    let jobs = words.number("--jobs", "a number", 1..=MAX_JOBS, JOBS)?;
    let retry = words.number("--retry", "a number", 0..=MAX_RETRY, RETRY)?;
    let lan = words.lan()?;
    let Some(hashlist) = words.operands.pop() else {
        return Err(words.usage("HASHLIST is missing"));
    };
    let hashlist = match Hash::parse(hashlist.as_bytes()) {
        Some(hash) => get::Hashlist::Root(hash),
        None => get::Hashlist::File(words.path(hashlist, "HASHLIST")?.into()),
    };
    let in_place = words.flag("--in-place");
    if in_place && output.is_none() {
        return Err(words.usage("--in-place needs -o FILE"));
    }
    let mirrors = words.values("--mirror");
    let options = get::Options {
        servers: words.urls(&words.operands, get::Url::parse)?,
        server_lists,
        lan,
        mirrors: words.urls(&mirrors, get::Url::parse_mirror)?,
        spread: words.flag("--spread"),
        peers: words.flag("--peers"),
        hashlist,
        output,
        in_place,
        dry_run: words.flag("--dry-run"),
        dir: words.block_dir(dir),
        keep: words.flag("--keep"),
        seeds,
        jobs,
        retry,
        connect_timeout,
        timeout,
        quiet: words.flag("--quiet"),
        verbose: words.flag("--verbose"),
        stats: words.flag("--stats"),
    };
    if options.keep && options.dir.is_none() {
        return Err(words.no_block_dir());
    }
    Ok(Command::Get(options))
}

/// A command's words, from which the command takes its options one by one.
struct Words<'a> {
    command: &'static str,
    /// The options alone, as `split` writes them.
    args: pico_args::Arguments,
    operands: Vec<OsString>,
    env: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Words<'_> {
    /// Whether the flag was given, however often.
    fn flag(&mut self, key: &'static str) -> bool {
        let is_given = self.args.contains(key);
        while self.args.contains(key) {}
        is_given
    }

    /// The value of an option, the last one if it was given more than once.
    fn value(&mut self, key: &'static str) -> Option<OsString> {
        self.values(key).pop()
    }

    /// All values of an option that may be given any number of times.
    fn values(&mut self, key: &'static str) -> Vec<OsString> {
        let take = |value: &OsStr| Ok::<_, String>(split::value(value));
        // `split` refuses an option without its value.
        self.args.values_from_os_str(key, take).unwrap_or_default()
    }

    fn paths(&mut self, key: &'static str) -> Result<Vec<PathBuf>> {
        let values = self.values(key).into_iter();
        values.map(|value| self.path(value, key)).collect()
    }

    /// The value of an option that names a file or directory.
    fn name(&mut self, key: &'static str, name: &str) -> Result<Option<PathBuf>> {
        let value = self.value(key);
        value.map(|value| self.path(value, name)).transpose()
    }

    /// The path of a file. An empty one, such as `"$UNSET"`, names none.
    fn path(&self, value: OsString, name: &str) -> Result<PathBuf> {
        if value.is_empty() {
            return Err(self.usage(format_args!("{name} is empty")));
        }
        Ok(value.into())
    }

    fn addresses(&self) -> Result<Vec<server::Address>> {
        if self.operands.is_empty() {
            return Err(self.usage("ADDR is missing, such as :8080"));
        }
        let address = |word: &OsString| {
            let address = word.to_str().and_then(server::Address::parse);
            address.ok_or_else(|| self.wrong(word, "ADDR is HOST:PORT, [v6]:PORT or :PORT"))
        };
        self.operands.iter().map(address).collect()
    }

    fn urls(
        &self,
        words: &[OsString],
        parse: fn(&str) -> std::result::Result<get::Url, &'static str>,
    ) -> Result<Vec<get::Url>> {
        let url = |word: &OsString| {
            let url = word.to_str().ok_or("a URL is UTF-8").and_then(parse);
            url.map_err(|problem| self.wrong(word, problem))
        };
        words.iter().map(url).collect()
    }

    /// The value of an option that takes a number of this kind, in this range.
    fn number<T: FromStr + PartialOrd + Display>(
        &mut self,
        key: &'static str,
        kind: &str,
        range: RangeInclusive<T>,
        default: T,
    ) -> Result<T> {
        let Some(value) = self.value(key) else {
            return Ok(default);
        };
        // std would take +1 for 1.
        let text = value.to_str().filter(|text| !text.starts_with('+'));
        let number = text.and_then(|text| text.parse().ok());
        let number = number.filter(|number| range.contains(number));
        let due = format!("{key} takes {kind}, {} to {}", range.start(), range.end());
        number.ok_or_else(|| self.wrong(&value, due))
    }

    /// The interface of `--lan`, which the system chooses, or of `--lan=ADDR`.
    fn lan(&mut self) -> Result<Option<Ipv4Addr>> {
        let any = self.flag("--lan").then_some(Ipv4Addr::UNSPECIFIED);
        let Some(value) = self.value("--lan=") else {
            return Ok(any);
        };
        let address = value.to_str().and_then(|text| text.parse().ok());
        let due = "--lan=ADDR takes the IPv4 address of an interface";
        Ok(Some(address.ok_or_else(|| self.wrong(&value, due))?))
    }

    /// The block directory: the option's, else `$PSYNC_DIR`, else in `$HOME`.
    fn block_dir(&self, named: Option<PathBuf>) -> Option<BlockDir> {
        let variable = |name| (self.env)(name).filter(|value| !value.is_empty());
        let path = named.or_else(|| variable("PSYNC_DIR").map(PathBuf::from));
        let in_home = || Some(Path::new(&variable("HOME")?).join(".psync/blocks"));
        path.or_else(in_home).map(BlockDir::new)
    }

    fn no_block_dir(&self) -> Error {
        self.usage("no block directory: name one with -d DIR, or set PSYNC_DIR or HOME")
    }

    fn wrong(&self, word: &OsStr, due: impl Display) -> Error {
        self.usage(format_args!("'{}': {due}", word.display()))
    }

    fn usage(&self, problem: impl Display) -> Error {
        Error::usage(self.command, problem)
    }
}

#[cfg(test)]
mod tests {
    use super::split::{Spec, Takes};
    use super::*;

    fn parse_line(line: &str) -> Result<Command> {
        parse(line.split(' ').map(OsString::from), |name| {
            (name == "HOME").then(|| "/home/u".into())
        })
    }

    fn refusal(line: &str) -> String {
        match parse_line(line) {
            Err(error) => format!("{error:?}"),
            Ok(_) => panic!("{line} is taken"),
        }
    }

    fn export(line: &str) -> export::Options {
        match parse_line(line) {
            Ok(Command::Export(options)) => options,
            _ => panic!("{line} is not an export"),
        }
    }

    #[test]
    fn a_link_is_its_command() {
        assert!(matches!(
            parse_line("/usr/bin/psync-export x"),
            Ok(Command::Export(_))
        ));
        assert!(matches!(
            parse_line("psync-server :0"),
            Ok(Command::Server(_))
        ));
        assert!(matches!(
            parse_line("./psync-get list"),
            Ok(Command::Get(_))
        ));
        assert!(refusal("psync-other x").contains("unknown command 'x'"));
    }

    #[test]
    fn export_reads_its_words() {
        let options = export("psync export -d /b --no-sync file");
        assert_eq!(options.store.unwrap().path(), "/b");
        assert_eq!(
            (options.input, options.durable),
            (Some("file".into()), false)
        );
        assert_eq!(
            export("psync export").store.unwrap().path(),
            "/home/u/.psync/blocks"
        );
        assert_eq!(
            export("psync export --dir=a=b").store.unwrap().path(),
            "a=b"
        );
        assert_eq!(export("psync export -d a -d b").store.unwrap().path(), "b");
        assert!(export("psync export --no-store -").input.is_none());
        assert_eq!(export("psync export -- -x").input, Some("-x".into()));
        assert!(export("psync export --no-store").store.is_none());
    }

    #[test]
    fn get_and_server_read_their_words() {
        let Ok(Command::Get(options)) = parse_line("psync get a b --timeout 0.05 list") else {
            panic!()
        };
        assert_eq!(
            (options.servers.len(), &*options.hashlist.to_string()),
            (2, "list")
        );
        assert_eq!(
            (options.timeout, options.connect_timeout),
            (Duration::from_millis(50), Duration::from_secs(5))
        );
        let Ok(Command::Server(options)) = parse_line("psync server :1 -d x [::1]:2 --max-conns=7")
        else {
            panic!()
        };
        assert_eq!(
            (
                options.addresses.len(),
                options.max_connections,
                options.dir_named
            ),
            (2, 7, true)
        );
        let Ok(Command::Server(options)) = parse_line("psync server --file a :1 --file=b") else {
            panic!()
        };
        assert!(options.files == ["a", "b"].map(PathBuf::from) && !options.dir_named);
    }

    fn get(line: &str) -> get::Options {
        match parse_line(line) {
            Ok(Command::Get(options)) => options,
            Ok(_) => panic!("{line} is not a get"),
            Err(error) => panic!("{line}: {error:?}"),
        }
    }

    #[test]
    fn short_options_may_be_joined() {
        for line in [
            "-kqj8 -of list",
            "-kqj 8 -o f list",
            "list -qk --jobs=8 --output f",
            "-kqof list -j8",
        ] {
            let options = get(&format!("psync get {line}"));
            assert_eq!((options.jobs, options.output), (8, Some("f".into())));
            assert!(options.keep && options.quiet && options.servers.is_empty());
        }
        assert_eq!(get("psync get -o -k list").output, Some("-k".into()));
        assert_eq!(get("psync get -o -- list").output, Some("--".into()));
        assert_eq!(get("psync get -o -- -- -k").output, Some("--".into()));
        // Standard output, in each form.
        for line in ["-o-", "-o -", "--output=-"] {
            assert_eq!(get(&format!("psync get {line} list")).output, None);
        }
        assert_eq!(export("psync export -db f").store.unwrap().path(), "b");
        let Ok(Command::Server(options)) = parse_line("psync server -vdb :1") else {
            panic!()
        };
        assert!(options.verbose && options.dir.unwrap().path() == "b");
    }

    #[test]
    fn a_command_takes_all_options_of_its_help() {
        for (command, help, operand, options) in [
            (EXPORT, EXPORT_HELP, "file", 6),
            (SERVER, SERVER_HELP, ":1", 9),
            (GET, GET_HELP, "list", 20),
        ] {
            let described = split::described(help);
            assert_eq!(described.len(), options, "{described:?}");
            for Spec(_, name, takes) in described {
                let value = match (name, takes) {
                    ("--mirror", _) => "=http://h/f",
                    (_, Takes::Value) => "=7",
                    _ => "",
                };
                let line = format!("psync {command} {operand} {name}{value}");
                // Which needs a FILE.
                let line = line.replace("--in-place", "--in-place -o f");
                assert!(parse_line(&line).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn lan_has_a_value_only_within_its_word() {
        let any = Some(Ipv4Addr::UNSPECIFIED);
        let one = Some(Ipv4Addr::new(10, 0, 0, 1));
        for (words, lan, servers) in [
            ("list", None, 0),
            ("--lan list", any, 0),
            ("--lan 10.0.0.1 list", any, 1),
            ("--lan=10.0.0.1 list", one, 0),
            ("a list --lan --lan=10.0.0.1", one, 1),
            ("--lan=10.0.0.1 list --lan", one, 0),
            ("-o --lan list", None, 0),
        ] {
            let Ok(Command::Get(options)) = parse_line(&format!("psync get {words}")) else {
                panic!("{words}")
            };
            assert_eq!(
                (options.lan, options.servers.len()),
                (lan, servers),
                "{words}"
            );
        }
        let Ok(Command::Server(options)) = parse_line("psync server --lan=10.0.0.1 :1") else {
            panic!()
        };
        assert_eq!(options.lan, one);
    }

    #[test]
    fn names_the_word_that_is_wrong() {
        for (line, word) in [
            ("psync", "a command is missing"),
            ("psync frob", "unknown command 'frob'"),
            ("psync --frob", "unknown option '--frob'"),
            ("psync export -x", "unknown option '-x'"),
            ("psync get -qxj8", "unknown option '-x' in '-qxj8'"),
            ("psync get -j8x list", "'8x': --jobs takes a number, 1 to"),
            ("psync get -qj list", "'list': --jobs takes a number"),
            ("psync get -qj", "-j: its value is missing"),
            ("psync server -dv", "ADDR is missing"),
            ("psync export a b", "unexpected word 'b'"),
            ("psync export -d", "-d: its value is missing"),
            (
                "psync export --no-store=x a",
                "unknown option '--no-store=x'",
            ),
            ("psync server", "ADDR is missing"),
            ("psync server 8080", "'8080': ADDR is"),
            (
                "psync server :1 --max-conns 0",
                "'0': --max-conns takes a number, 1 to",
            ),
            (
                "psync server :1 --max-conns 99999999999999999999",
                "--max-conns takes",
            ),
            ("psync server :1 --max-conns +1", "--max-conns takes"),
            ("psync server :1 --timeout 0", "--timeout takes seconds"),
            ("psync server :1 --timeout 1e3", "--timeout takes seconds"),
            ("psync server :1 --timeout .", "--timeout takes seconds"),
            ("psync server :1 --timeout inf", "--timeout takes seconds"),
            ("psync get --lan=eth0 x", "'eth0': --lan=ADDR takes"),
            ("psync get --lan= x", "'': --lan=ADDR takes"),
            ("psync get --lans x", "unknown option '--lans'"),
            ("psync export --lan x", "unknown option '--lan'"),
            ("psync get", "HASHLIST is missing"),
            ("psync get ftp://x list", "'ftp://x': a server is"),
        ] {
            let refusal = refusal(line);
            assert!(
                refusal.contains(word) && refusal.contains("--help") && refusal.contains("Usage"),
                "{line}: {refusal}"
            );
        }
        let no_home = parse(["psync", "export", "x"].map(OsString::from), |_| None);
        assert!(no_home.is_err());
    }

    #[test]
    fn every_command_has_help_and_version() {
        for command in ["", " export", " server", " get"] {
            for (option, text) in [
                ("-h", "Usage:"),
                ("--help", "Usage:"),
                ("-V", "psync 0"),
                ("--version", "psync 0"),
            ] {
                let Ok(Command::Print(printed)) = parse_line(&format!("psync{command} {option}"))
                else {
                    panic!()
                };
                assert!(printed.contains(text) && printed.ends_with('\n'));
                assert!(printed.lines().all(|line| line.len() <= 80), "{printed}");
            }
        }
    }
}
