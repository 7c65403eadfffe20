//! `psync get`: hashlist to blocks to output.
//!
//! This file owns the story: what is opened in which order, and what is said at the end. The list is
//! `get/list.rs`, under a root `get/levels.rs`, in an order of its own `get/order.rs`; `get/flow.rs`
//! hands it out to `get/worker.rs`, who look for each block at hand (`get/local.rs`, `get/seed.rs`)
//! and then ask the servers: which of them, how and for how much is `get/servers.rs`, who else may be
//! asked `get/peers.rs`, what is asked and what the answer is worth `get/ask.rs` and, for whole files,
//! `get/mirror.rs`, which tell it in words of `get/asked.rs`; one request is `get/fetch.rs`, where it
//! goes `get/url.rs` and `get/proxy.rs`. What comes back exists only verified, and goes by
//! `get/parts.rs`, many blocks at once, to `get/output.rs`. Where FILE is, is `get/target.rs`; what is
//! right in it already, `get/existing.rs`.

mod ask;
mod asked;
mod dry_run;
mod existing;
mod fetch;
mod flow;
mod in_use;
mod levels;
mod list;
mod local;
mod mirror;
mod order;
mod output;
mod parts;
mod peers;
mod proxy;
mod rights;
mod seed;
mod servers;
mod target;
mod url;
mod worker;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use crate::block;
use crate::console;
use crate::error::{Cause, Error, Result};
use crate::file;
use crate::hash::Hash;
use crate::lan;
use crate::progress::Progress;
use crate::store::BlockDir;
use dry_run::Count;
use fetch::{Fetcher, Tally};
use flow::{Flow, Summary};
use levels::Levels;
use list::{List, Wanted};
use mirror::Mirror;
use output::{Output, Place, Stream};
use parts::Spare;
use seed::Seed;
use servers::Servers;
use target::Target;
pub use url::Url;
use worker::{Shared, Sources, Workers};

/// What the command line asks for.
pub struct Options {
    pub servers: Vec<Url>,
    /// Files with more of them.
    pub server_lists: Vec<PathBuf>,
    /// By which interface the local network is asked for servers, if it is: its address, or
    /// unspecified for the system's choice.
    pub lan: Option<Ipv4Addr>,
    /// Plain copies of the whole file.
    pub mirrors: Vec<Url>,
    /// Whether each run of blocks begins at another server.
    pub spread: bool,
    /// Whether servers are asked for more of them.
    pub peers: bool,
    pub hashlist: Hashlist,
    /// None: standard output.
    pub output: Option<PathBuf>,
    pub in_place: bool,
    /// Whether to count only what is here and what is missing.
    pub dry_run: bool,
    /// Looked in first. None where no directory is known.
    pub dir: Option<BlockDir>,
    /// Whether what is fetched goes into `dir`.
    pub keep: bool,
    pub seeds: Vec<PathBuf>,
    pub jobs: usize,
    pub retry: u32,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub quiet: bool,
    pub verbose: bool,
    pub stats: bool,
}

impl Options {
    /// Without servers to ask, and without a place to keep blocks.
    fn alone(self) -> Self {
        Options {
            servers: Vec::new(),
            server_lists: Vec::new(),
            lan: None,
            mirrors: Vec::new(),
            peers: false,
            keep: false,
            retry: 0,
            ..self
        }
    }
}

/// Where the hashes come from.
pub enum Hashlist {
    /// A file's name, or `-`.
    File(OsString),
    Root(Hash),
}

impl fmt::Display for Hashlist {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Hashlist::File(name) => name.display().fmt(f),
            Hashlist::Root(hash) => hash.fmt(f),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for a list that is not one, before anything is fetched where it is a file; 3 for
/// blocks that nobody has; 1 for what fails on this machine.
pub fn run(options: Options) -> Result<()> {
    let options = &match options.dry_run {
        true => options.alone(),
        false => options,
    };
    let mut report = Report::new(options);
    // A file's list is read before anything else happens.
    let list = match &options.hashlist {
        Hashlist::File(name) => Ok(List::open(name)?),
        Hashlist::Root(hash) => Err(*hash),
    };
    let mut servers = servers(options)?;
    report.has_servers = !(servers.is_empty() && options.mirrors.is_empty());
    let seeds: Result<Vec<Seed>> = options.seeds.iter().map(|path| Seed::open(path)).collect();
    let seeds = seeds?;
    let target = options.output.as_deref().map(Target::find).transpose()?;
    if let (Some(target), Hashlist::File(name)) = (&target, &options.hashlist) {
        check_list_stays(target, Path::new(name))?;
    }
    if options.dry_run {
        let count = count(options, list, seeds, target.as_ref())?;
        return report.counted(&count);
    }
    if let Some(target) = &target
        && let Some(blocks) = blocks_already_right(options, &target.path, list.as_ref().ok())?
    {
        existing::settle(&target.path)?;
        let at_hand = Summary {
            at_hand: blocks,
            ..Summary::default()
        };
        return report.done(at_hand, Tally::default());
    }
    let beginnings = match (&target, &list) {
        (Some(target), Err(_)) => existing::beginnings(target),
        _ => Vec::new(),
    };
    // Before any server is asked: what cannot be written need not be fetched.
    let output = Output::open(target, options.in_place)?;
    if let Some(interface) = options.lan {
        servers = servers_near(interface, servers, options.quiet);
        report.has_servers |= !servers.is_empty();
    }
    let sources = Arc::new(gather(options, servers, seeds)?);
    let list = list.or_else(|root| under(options, root, &sources, beginnings));
    let told = put_together(options, list, output, &sources, &mut report);
    told.map_err(|error| match error.is_missing() {
        true => sources
            .servers
            .reasons()
            .into_iter()
            .fold(error, Error::and),
        false => error,
    })
}

/// # Errors
/// When the list would be written over: it is what is trusted.
fn check_list_stays(target: &Target, list: &Path) -> Result<()> {
    for path in [&target.path, &target.part()] {
        if file::is_same(path, list) {
            let problem = format_args!(
                "-o {} is HASHLIST itself, which would be lost",
                path.display()
            )
            .to_string();
            return Err(Error::usage("get", problem));
        }
    }
    Ok(())
}

/// What is here of the file, for `--dry-run`.
fn count(
    options: &Options,
    list: std::result::Result<List, Hash>,
    seeds: Vec<Seed>,
    target: Option<&Target>,
) -> Result<Count> {
    if let (Some(target), Err(root)) = (target, &list)
        && let Some(size) = existing::has_root(&target.path, root)
    {
        return Ok(Count::complete(block::count(size)));
    }
    let sources = Arc::new(gather(options, Vec::new(), seeds)?);
    let below = |root| {
        let beginnings = target.map(existing::beginnings).unwrap_or_default();
        under(options, root, &sources, beginnings)
    };
    let mut list = match list.or_else(below) {
        Err(error) if error.is_missing() => return Ok(Count::without_root()),
        list => list?,
    };
    list.begin()?;
    let progress = Progress::new(!options.quiet, false);
    dry_run::count(&mut list, &sources, target, options.in_place, progress)
}

/// The work, once it is known that there is some: with a list, or what came of looking for one.
fn put_together(
    options: &Options,
    list: Result<List>,
    output: Output,
    sources: &Arc<Sources>,
    report: &mut Report,
) -> Result<()> {
    let list = match list {
        Err(error) if error.is_missing() => {
            let unlisted = Summary {
                unlisted: Some(error),
                ..Summary::default()
            };
            return report.done(unlisted, sources.fetcher.tally());
        }
        list => list?,
    };
    report.length = list.length();
    let last = list.last();
    let (shared, mut stream) = begin(options, list, output, sources)?;
    check_room(&shared, last)?;
    let workers = Workers::start(options.jobs, &shared)?;
    let flow = Flow::new(
        &shared,
        (&report.name, report.length),
        stream.as_mut(),
        workers,
        Progress::new(!options.quiet, options.output.is_none()),
        options.retry,
    );
    let summary = flow.run()?;
    if summary.missing == 0
        && let Some(place) = &shared.place
    {
        let grants_less = place.finish(summary.size)?;
        report.warn_of_rights(grants_less);
    }
    report.done(summary, sources.fetcher.tally())
}

/// Puts together where blocks may come from.
fn gather(options: &Options, servers: Vec<Url>, seeds: Vec<Seed>) -> Result<Sources> {
    let (connect_timeout, timeout) = (options.connect_timeout, options.timeout);
    let everybody = [&servers[..], &options.mirrors].concat();
    let longest = flow::longest_run(options.jobs);
    let tell: fn(String) = if options.verbose { tell } else { |_| {} };
    let mirrors = options.mirrors.clone();
    let keep = options.dir.as_ref().filter(|_| options.keep);
    let fetcher = Fetcher::new(
        &everybody,
        options.peers,
        options.jobs,
        connect_timeout,
        timeout,
    )?;
    let fetcher = Arc::new(fetcher);
    let mut servers = Servers::new(servers, mirrors.clone(), longest, options.spread, tell);
    if options.peers {
        let find = peers::finder(Arc::clone(&fetcher), timeout);
        servers.find_peers(find, timeout, options.verbose);
    }
    Ok(Sources {
        mirrors: mirrors.iter().map(|_| Mirror::default()).collect(),
        servers,
        fetcher,
        keep: RwLock::new(keep.map(BlockDir::writer).transpose()?),
        // A look into one that is not there is a system call a block.
        dir: options.dir.clone().filter(|dir| dir.path().exists()),
        seeds,
        spare: Spare::new(longest),
        stop: AtomicBool::new(false),
    })
}

/// Begins to fetch a list under a root: only once there is room for its file.
fn begin(
    options: &Options,
    mut list: List,
    output: Output,
    sources: &Arc<Sources>,
) -> Result<(Arc<Shared>, Option<Stream>)> {
    let (place, stream) = match output {
        Output::Place(place) => (Some(*place), None),
        Output::Stream(stream) => (None, Some(stream)),
    };
    if let Some(place) = &place {
        place.check_size(&list)?;
    }
    list.begin()?;
    if place.is_some() {
        list.tell_last();
        // Others may be at it too. A mirror that ignores ranges is read through for each step back.
        if (options.lan.is_some() || options.peers) && options.mirrors.is_empty() {
            list = list.shuffle()?;
        }
    }
    let before = place.as_ref().and_then(Place::before);
    let shared = Shared {
        sources: Arc::clone(sources),
        list: Mutex::new(list),
        before: before.and_then(|before| Seed::new(before).ok()),
        place,
    };
    Ok((Arc::new(shared), stream))
}

/// A device that may be too small for the last block is written to only when that is known to fit.
fn check_room(shared: &Shared, last: Option<Wanted>) -> Result<()> {
    let (Some(place), Some(last)) = (&shared.place, last) else {
        return Ok(());
    };
    if place.is_tight(last.number + 1)
        && let Some(length) = worker::find(shared, &last)?
    {
        place.check_room(&last, length)?;
    }
    Ok(())
}

fn tell(text: String) {
    console::complain(text);
}

/// The list under a root, once its root block is found.
fn under(
    options: &Options,
    hash: Hash,
    sources: &Arc<Sources>,
    beginnings: Vec<Seed>,
) -> Result<List> {
    let name = options.hashlist.to_string();
    let levels = Levels::new(sources, &name, beginnings, options.retry);
    let root = levels.root(hash)?;
    Ok(List::under(root, &name, levels))
}

/// The blocks of FILE, if it is all that the list says: then it is not touched. A list that can
/// be read only once tells nothing beforehand.
fn blocks_already_right(
    options: &Options,
    path: &Path,
    list: Option<&List>,
) -> Result<Option<u64>> {
    match &options.hashlist {
        Hashlist::Root(hash) => Ok(existing::has_root(path, hash).map(block::count)),
        Hashlist::File(name) => {
            let Some(length) = list.and_then(List::length) else {
                return Ok(None);
            };
            let right = existing::is_right(path, &mut List::open(name)?)?;
            Ok(right.then_some(length))
        }
    }
}

/// The servers of the command line, then those of the files that it names.
fn servers(options: &Options) -> Result<Vec<Url>> {
    let mut servers = options.servers.clone();
    for path in &options.server_lists {
        let text = fs::read(path).map_err(|e| Error::io("read servers", path.display(), &e))?;
        for (number, url) in Url::list(&text) {
            servers.push(url.map_err(|cause| {
                let line = format_args!("{}:{number}", path.display());
                Error::malformed("read servers", line, cause)
            })?);
        }
    }
    Ok(servers)
}

/// The servers that answer in the local network, then those `listed`, which have to do where there is
/// no network.
// Inlined it would have the compiler write half of its caller twice.
#[inline(never)]
fn servers_near(interface: Ipv4Addr, listed: Vec<Url>, is_quiet: bool) -> Vec<Url> {
    let mut servers = Vec::new();
    match lan::ask(interface) {
        Ok(answers) => {
            for server in answers {
                servers.extend(Url::near(server));
            }
        }
        Err(_) if is_quiet => {}
        Err(cause) => {
            let (cause, advice) = (Cause(&cause), lan::ADVICE);
            console::complain(format_args!("ask the local network: {cause}; {advice}"));
        }
    }
    servers.extend(listed);
    servers
}

/// What is said at the end.
struct Report<'a> {
    options: &'a Options,
    /// The list's, and its lines.
    name: String,
    length: Option<u64>,
    has_servers: bool,
    started: Instant,
}

impl<'a> Report<'a> {
    fn new(options: &'a Options) -> Self {
        Report {
            options,
            name: options.hashlist.to_string(),
            length: None,
            has_servers: false,
            started: Instant::now(),
        }
    }

    /// Sums up as far as that is asked for.
    ///
    /// # Errors
    /// Exit code 3 when blocks are missing.
    fn done(&self, mut summary: Summary, tally: Tally) -> Result<()> {
        let (options, name) = (self.options, &self.name);
        let Summary {
            at_hand,
            fetched,
            missing,
            ..
        } = summary;
        let (blocks, seconds) = (summary.blocks(), self.started.elapsed());
        self.warn_of_emptiness(blocks);
        if options.verbose {
            console::complain(format_args!(
                "get {name}: {blocks} blocks: {at_hand} at hand, {fetched} fetched, {missing} missing"
            ));
        }
        let stats = options.stats.then(|| {
            format!(
                "blocks={blocks} local={at_hand} fetched={fetched} missing={missing} bytes={} requests={} seconds={}.{:03}",
                tally.bytes, tally.requests, seconds.as_secs(), seconds.subsec_millis()
            )
        });
        if let Some(error) = summary.unlisted.take() {
            return Err(error.closing(stats));
        }
        if missing > 0 {
            return Err(self.missing(&summary).closing(stats));
        }
        stats.into_iter().for_each(console::print_line);
        Ok(())
    }

    fn warn_of_emptiness(&self, blocks: u64) {
        let is_list = matches!(self.options.hashlist, Hashlist::File(_));
        if blocks == 0 && is_list && !self.options.quiet {
            console::complain(format_args!(
                "get {}: the hashlist is empty, so the file is; a failed download of the list looks the same",
                self.name
            ));
        }
    }

    /// Says what `--dry-run` found.
    ///
    /// # Errors
    /// Exit code 3 when blocks are missing, or FILE is not yet what the list says.
    fn counted(&self, count: &Count) -> Result<()> {
        let Count {
            blocks,
            local,
            missing,
            bytes,
            is_complete,
        } = count;
        self.warn_of_emptiness(*blocks);
        let line = format!("blocks={blocks} local={local} missing={missing} bytes={bytes}\n");
        console::Stdout::new()?.write(line.as_bytes())?;
        let cause = match &self.options.output {
            _ if *blocks == 0 && *missing > 0 => "its root block is not here".to_owned(),
            _ if *missing > 0 => format!("{missing} of {blocks} blocks are not here"),
            Some(file) if !is_complete => {
                let file = file.display();
                format!(
                    "{file} is not complete, though all blocks are here; run the same command without --dry-run"
                )
            }
            _ => return Ok(()),
        };
        Err(Error::missing("get", &self.name, cause))
    }

    /// Says that FILE could not be given all the rights that it had.
    fn warn_of_rights(&self, grants_less: bool) {
        if let (true, Some(file)) = (grants_less, &self.options.output) {
            console::complain(format_args!(
                "keep the rights of {}: the owner, group, mode or ACL was refused, so fewer users may use it now",
                file.display()
            ));
        }
    }

    fn missing(&self, summary: &Summary) -> Error {
        let mut places = summary
            .named
            .iter()
            .map(|(number, hash)| (number + 1, hash));
        if summary.is_stream {
            // It ends at the first, so that there is no more to tell.
            let of = self
                .length
                .map_or_else(String::new, |length| format!(" of {length}"));
            let who = if self.has_servers {
                "no server gave it"
            } else {
                "it is not at hand, and no server is given"
            };
            let (number, hash) = places
                .next()
                .map_or((0, String::new()), |(n, hash)| (n, hash.to_string()));
            return Error::missing(
                "get",
                hash,
                format_args!("block {number}{of}: {who}; the output ends before it"),
            );
        }
        let named: Vec<String> = places
            .map(|(number, hash)| format!("{hash} (block {number})"))
            .collect();
        let (count, blocks, named) = (summary.missing, summary.blocks(), named.join(", "));
        let more = if count > summary.named.len() as u64 {
            ", ..."
        } else {
            ""
        };
        let cause = format_args!("{count} of {blocks} blocks could not be had: {named}{more}; the same command later goes on from here").to_string();
        Error::missing("get", &self.name, cause)
    }
}
