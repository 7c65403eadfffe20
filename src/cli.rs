//! The command line: help texts, the options of each command, and words to typed options. Only this
//! file uses `pico_args`; how people type options is `cli/split.rs`.
//!
//! Pure: from a vector of words and a closure for the environment, so all of it is tested
//! without a process. It opens nothing.

mod split;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::seconds::{self, Seconds};
use crate::store::BlockDir;
use crate::{export, get, server};
use split::{Spec, Takes};

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

/// The options of each command, in the order of its help.
const EXPORT_OPTIONS: &[Spec] = &[
    Spec(Some(b'd'), "--dir", Takes::Value),
    Spec(None, "--root", Takes::Nothing),
    Spec(None, "--no-store", Takes::Nothing),
    Spec(None, "--no-sync", Takes::Nothing),
];
const SERVER_OPTIONS: &[Spec] = &[
    Spec(Some(b'd'), "--dir", Takes::Value),
    Spec(None, "--file", Takes::Value),
    Spec(None, "--peers", Takes::Value),
    Spec(None, LAN, Takes::Inline),
    Spec(None, "--max-conns", Takes::Value),
    Spec(None, "--timeout", Takes::Value),
    Spec(Some(b'v'), "--verbose", Takes::Nothing),
];
const GET_OPTIONS: &[Spec] = &[
    Spec(Some(b'o'), "--output", Takes::Value),
    Spec(None, "--in-place", Takes::Nothing),
    Spec(Some(b'n'), "--dry-run", Takes::Nothing),
    Spec(Some(b'd'), "--dir", Takes::Value),
    Spec(Some(b'k'), "--keep", Takes::Nothing),
    Spec(None, "--seed", Takes::Value),
    Spec(None, "--servers", Takes::Value),
    Spec(None, "--peers", Takes::Nothing),
    Spec(None, LAN, Takes::Inline),
    Spec(Some(b'm'), "--mirror", Takes::Value),
    Spec(None, "--spread", Takes::Nothing),
    Spec(Some(b'j'), "--jobs", Takes::Value),
    Spec(None, "--timeout", Takes::Value),
    Spec(None, "--connect-timeout", Takes::Value),
    Spec(None, "--retry", Takes::Value),
    Spec(Some(b'q'), "--quiet", Takes::Nothing),
    Spec(Some(b'v'), "--verbose", Takes::Nothing),
    Spec(None, "--stats", Takes::Nothing),
];
const COMMON_OPTIONS: &[Spec] = &[
    Spec(Some(b'h'), "--help", Takes::Nothing),
    Spec(Some(b'V'), "--version", Takes::Nothing),
];

/// The local network: the interface that the system chooses, or that of an address.
const LAN: &str = "--lan";
const LAN_VALUE: &str = "--lan=";

/// A server's connections at once, where the command line does not say, and at most: more than a box
/// has descriptors is a slip of the finger.
const MAX_CONNECTIONS: usize = 512;
const MOST_CONNECTIONS: usize = 100_000;

/// Requests under way at once, where the command line does not say, and at most: each is a thread
/// and a connection to every server that is asked.
const JOBS: usize = 8;
const MAX_JOBS: usize = 256;

/// More rounds over the servers for what failed.
const RETRY: u32 = 2;
const MAX_RETRY: u32 = 1000;

/// Seconds, where the command line does not say. A server's are fewer: a client that is slow holds a
/// place that others want, and one that waits for a slow server holds nothing.
const SERVER_TIMEOUT: u64 = 15;
const GET_TIMEOUT: u64 = 30;
const CONNECT_TIMEOUT: u64 = 5;

/// What a timeout may be: more than a day is a slip of the finger.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

/// What is to be done.
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
            return Err(Error::usage(
                "",
                "a command is missing: export, server or get",
            ));
        }
        _ => words.remove(0).to_string_lossy().into_owned(),
    };
    match command.as_str() {
        EXPORT => Words::new(EXPORT, words, EXPORT_OPTIONS, &env).parse(EXPORT_HELP, parse_export),
        SERVER => Words::new(SERVER, words, SERVER_OPTIONS, &env).parse(SERVER_HELP, parse_server),
        GET => Words::new(GET, words, GET_OPTIONS, &env).parse(GET_HELP, parse_get),
        "-h" | "--help" => Ok(Command::Print(HELP)),
        "-V" | "--version" => Ok(Command::Print(VERSION)),
        option if option.starts_with('-') => {
            Err(Error::usage("", format_args!("unknown option '{option}'")))
        }
        word => Err(Error::usage("", format_args!("unknown command '{word}'"))),
    }
}

fn parse_export(words: &mut Words) -> Result<Command> {
    let dir = words.name("--dir", "-d")?;
    let store = !words.flag("--no-store");
    let durable = !words.flag("--no-sync");
    let root = words.flag("--root");
    let mut operands = words.operands().into_iter();
    let input = operands.next().filter(|file| file != "-");
    let input = input.map(|file| words.path(file, "FILE")).transpose()?;
    words.refuse(operands.next())?;
    let store = store
        .then(|| words.block_dir(dir).ok_or_else(|| words.no_block_dir()))
        .transpose()?;
    Ok(Command::Export(export::Options {
        input,
        store,
        durable,
        root,
    }))
}

fn parse_server(words: &mut Words) -> Result<Command> {
    let dir = words.name("--dir", "-d")?;
    let files = words.paths("--file")?;
    let peers = words.paths("--peers")?.pop();
    let max_connections = words.number("--max-conns", 1..=MOST_CONNECTIONS, MAX_CONNECTIONS)?;
    let timeout = words.seconds("--timeout", SERVER_TIMEOUT)?;
    let verbose = words.flag("--verbose");
    let lan = words.lan()?;
    let mut addresses = Vec::new();
    for word in words.operands() {
        let address = word.to_str().and_then(server::Address::parse);
        addresses.push(
            address.ok_or_else(|| words.wrong(&word, "ADDR is HOST:PORT, [v6]:PORT or :PORT"))?,
        );
    }
    if addresses.is_empty() {
        return Err(words.usage("ADDR is missing, such as :8080"));
    }
    let dir_named = dir.is_some();
    let dir = words.block_dir(dir);
    if dir.is_none() && files.is_empty() {
        return Err(words.no_block_dir());
    }
    Ok(Command::Server(server::Options {
        dir,
        dir_named,
        files,
        peers,
        addresses,
        lan,
        max_connections,
        timeout,
        verbose,
    }))
}

fn parse_get(words: &mut Words) -> Result<Command> {
    let dir = words.name("--dir", "-d")?;
    let timeout = words.seconds("--timeout", GET_TIMEOUT)?;
    let connect_timeout = words.seconds("--connect-timeout", CONNECT_TIMEOUT)?;
    let output = words.name("--output", "-o")?;
    let output = output.filter(|output| output.as_os_str() != "-");
    let in_place = words.flag("--in-place");
    let dry_run = words.flag("--dry-run");
    let keep = words.flag("--keep");
    let seeds = words.paths("--seed")?;
    let server_lists = words.paths("--servers")?;
    let mirrors = words.values("--mirror")?;
    let spread = words.flag("--spread");
    let peers = words.flag("--peers");
    let jobs = words.number("--jobs", 1..=MAX_JOBS, JOBS)?;
    let retry = words.number("--retry", 0..=MAX_RETRY, RETRY)?;
    let quiet = words.flag("--quiet");
    let verbose = words.flag("--verbose");
    let stats = words.flag("--stats");
    let lan = words.lan()?;
    let mut operands = words.operands();
    let Some(hashlist) = operands.pop() else {
        return Err(words.usage("HASHLIST is missing"));
    };
    let hashlist = match Hash::parse(hashlist.as_bytes()) {
        Some(hash) => get::Hashlist::Root(hash),
        None => get::Hashlist::File(words.path(hashlist, "HASHLIST")?.into()),
    };
    if in_place && output.is_none() {
        return Err(words.usage("--in-place needs -o FILE"));
    }
    let servers = words.urls(&operands, get::Url::parse)?;
    let mirrors = words.urls(&mirrors, get::Url::parse_mirror)?;
    let dir = words.block_dir(dir);
    if keep && dir.is_none() {
        return Err(words.no_block_dir());
    }
    Ok(Command::Get(get::Options {
        servers,
        server_lists,
        lan,
        mirrors,
        spread,
        peers,
        hashlist,
        output,
        in_place,
        dry_run,
        dir,
        keep,
        seeds,
        jobs,
        retry,
        connect_timeout,
        timeout,
        quiet,
        verbose,
        stats,
    }))
}

/// A command's words, from which options are taken until only operands are left.
struct Words<'a> {
    command: &'static str,
    /// The options alone, as `split` has them.
    args: pico_args::Arguments,
    operands: Vec<OsString>,
    problem: Option<String>,
    env: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Words<'a> {
    fn new(
        command: &'static str,
        words: Vec<OsString>,
        options: &[Spec],
        env: &'a dyn Fn(&str) -> Option<OsString>,
    ) -> Self {
        let split = split::split(words, &[options, COMMON_OPTIONS]);
        Words {
            command,
            args: pico_args::Arguments::from_vec(split.options),
            operands: split.operands,
            problem: split.problem,
            env,
        }
    }

    fn parse(
        mut self,
        help: &'static str,
        parse: fn(&mut Words) -> Result<Command>,
    ) -> Result<Command> {
        if self.flag("--help") {
            return Ok(Command::Print(help));
        }
        if self.flag("--version") {
            return Ok(Command::Print(VERSION));
        }
        if let Some(problem) = self.problem.take() {
            return Err(self.usage(problem));
        }
        parse(&mut self)
    }

    /// Whether the flag was given, however often.
    fn flag(&mut self, key: &'static str) -> bool {
        let mut given = false;
        while self.args.contains(key) {
            given = true;
        }
        given
    }

    /// The value of an option, the last one where it was given more than once.
    fn value(&mut self, key: &'static str) -> Result<Option<OsString>> {
        Ok(self.values(key)?.pop())
    }

    /// All values of an option that may be given any number of times.
    fn values(&mut self, key: &'static str) -> Result<Vec<OsString>> {
        let take = |value: &OsStr| Ok::<_, String>(split::value(value));
        let values = self.args.values_from_os_str(key, take);
        values.map_err(|e| self.usage(e))
    }

    fn paths(&mut self, key: &'static str) -> Result<Vec<PathBuf>> {
        let values = self.values(key)?.into_iter();
        values.map(|value| self.path(value, key)).collect()
    }

    /// What names a file, which nothing does that is empty: `"$UNSET"`.
    fn path(&self, value: OsString, name: &str) -> Result<PathBuf> {
        if value.is_empty() {
            return Err(self.usage(format_args!("{name} is empty")));
        }
        Ok(value.into())
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

    /// The value of an option that names a file or directory.
    fn name(&mut self, key: &'static str, name: &str) -> Result<Option<PathBuf>> {
        let value = self.value(key)?;
        value.map(|value| self.path(value, name)).transpose()
    }

    /// The seconds that an option takes, or so many without it.
    fn seconds(&mut self, key: &'static str, without: u64) -> Result<Duration> {
        let Some(value) = self.value(key)? else {
            return Ok(Duration::from_secs(without));
        };
        let seconds = value.to_str().and_then(seconds::parse);
        let (least, most) = (Seconds(*TIMEOUTS.start()), Seconds(*TIMEOUTS.end()));
        let due = format_args!("{key} takes seconds, {least} to {most}").to_string();
        let seconds = seconds.filter(|seconds| TIMEOUTS.contains(seconds));
        seconds.ok_or_else(|| self.wrong(&value, due))
    }

    /// The number that an option takes, or this one without it.
    fn number<T: FromStr + PartialOrd + Display>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        without: T,
    ) -> Result<T> {
        let Some(value) = self.value(key)? else {
            return Ok(without);
        };
        let text = value
            .to_str()
            .filter(|text| text.bytes().all(|c| c.is_ascii_digit()));
        let number = text
            .and_then(|text| text.parse().ok())
            .filter(|number| range.contains(number));
        let due = format!("{key} takes a number, {} to {}", range.start(), range.end());
        number.ok_or_else(|| self.wrong(&value, due))
    }

    /// The interface of `--lan`, the system's choice, or of `--lan=ADDR`.
    fn lan(&mut self) -> Result<Option<Ipv4Addr>> {
        let any = self.flag(LAN).then_some(Ipv4Addr::UNSPECIFIED);
        let Some(value) = self.value(LAN_VALUE)? else {
            return Ok(any);
        };
        let address = value.to_str().and_then(|text| text.parse().ok());
        let due = "--lan=ADDR takes the IPv4 address of an interface";
        Ok(Some(address.ok_or_else(|| self.wrong(&value, due))?))
    }

    /// What is left once every option is taken.
    fn operands(&mut self) -> Vec<OsString> {
        debug_assert!(
            self.args.clone().finish().is_empty(),
            "the command takes all options of its table"
        );
        std::mem::take(&mut self.operands)
    }

    fn refuse(&self, leftover: Option<OsString>) -> Result<()> {
        leftover.map_or(Ok(()), |word| {
            Err(self.usage(format_args!("unexpected word '{}'", word.display())))
        })
    }

    /// The block directory: the option's, else `$PSYNC_DIR`, else in `$HOME`.
    fn block_dir(&self, named: Option<PathBuf>) -> Option<BlockDir> {
        let variable = |name| {
            (self.env)(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let path = named.or_else(|| variable("PSYNC_DIR"));
        path.or_else(|| variable("HOME").map(|home| home.join(".psync/blocks")))
            .map(BlockDir::new)
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
    use super::*;

    fn read(line: &str) -> Result<Command> {
        parse(line.split(' ').map(OsString::from), |name| {
            (name == "HOME").then(|| "/home/u".into())
        })
    }

    fn refusal(line: &str) -> String {
        match read(line) {
            Err(error) => format!("{error:?}"),
            Ok(_) => panic!("{line} is taken"),
        }
    }

    fn export(line: &str) -> export::Options {
        match read(line) {
            Ok(Command::Export(options)) => options,
            _ => panic!("{line} is not an export"),
        }
    }

    #[test]
    fn a_link_is_its_command() {
        assert!(matches!(
            read("/usr/bin/psync-export x"),
            Ok(Command::Export(_))
        ));
        assert!(matches!(read("psync-server :0"), Ok(Command::Server(_))));
        assert!(matches!(read("./psync-get list"), Ok(Command::Get(_))));
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
        let Ok(Command::Get(options)) = read("psync get a b --timeout 0.05 list") else {
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
        let Ok(Command::Server(options)) = read("psync server :1 -d x [::1]:2 --max-conns=7")
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
        let Ok(Command::Server(options)) = read("psync server --file a :1 --file=b") else {
            panic!()
        };
        assert!(options.files == ["a", "b"].map(PathBuf::from) && !options.dir_named);
    }

    fn get(line: &str) -> get::Options {
        match read(line) {
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
        let Ok(Command::Server(options)) = read("psync server -vdb :1") else {
            panic!()
        };
        assert!(options.verbose && options.dir.unwrap().path() == "b");
    }

    /// Also that a command takes all options of its table: see `operands`.
    #[test]
    fn each_table_has_the_options_of_the_help() {
        for (command, help, table, operand) in [
            (EXPORT, EXPORT_HELP, EXPORT_OPTIONS, "file"),
            (SERVER, SERVER_HELP, SERVER_OPTIONS, ":1"),
            (GET, GET_HELP, GET_OPTIONS, "list"),
        ] {
            let heads = help.lines().map(str::trim_start);
            let heads = heads.filter(|line| line.starts_with('-'));
            let mut listed: Vec<_> = heads
                .map(|line| line.split("  ").next().unwrap().to_owned())
                .collect();
            for Spec(letter, name, takes) in table.iter().chain(COMMON_OPTIONS) {
                let letter = letter.map(|c| format!("-{}, ", char::from(c)));
                let head = letter.unwrap_or_default() + name;
                let is_it = |listed: &String| match (listed.strip_prefix(&head), takes) {
                    (Some(value), Takes::Value) => value.starts_with(' '),
                    (rest, _) => rest == Some(""),
                };
                let at = listed.iter().position(is_it);
                listed.remove(at.unwrap_or_else(|| panic!("{head} is not in {listed:?}")));
                if *takes == Takes::Inline {
                    assert!(help.contains(&format!("{name}=")), "{name}");
                }
                let value = match *name {
                    "--mirror" => "http://h/f",
                    _ => "7",
                };
                let mut line = format!("psync {command} {operand} {name}");
                if *takes == Takes::Value {
                    line.extend(["=", value]);
                }
                // Which needs a FILE.
                let line = line.replace("--in-place", "--in-place -o f");
                assert!(read(&line).is_ok(), "{line}");
            }
            assert!(listed.is_empty(), "{command} has no {listed:?}");
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
            let Ok(Command::Get(options)) = read(&format!("psync get {words}")) else {
                panic!("{words}")
            };
            assert_eq!(
                (options.lan, options.servers.len()),
                (lan, servers),
                "{words}"
            );
        }
        let Ok(Command::Server(options)) = read("psync server --lan=10.0.0.1 :1") else {
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
                let Ok(Command::Print(printed)) = read(&format!("psync{command} {option}")) else {
                    panic!()
                };
                assert!(printed.contains(text) && printed.ends_with('\n'));
                assert!(printed.lines().all(|line| line.len() <= 80), "{printed}");
            }
        }
    }
}
