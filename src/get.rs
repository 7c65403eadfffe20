//! `psync get`: hashlist to blocks to output.
//!
//! This file owns the story: what is opened in which order, and what is said at the end. The list
//! is `get/list.rs`; `get/flow.rs` hands it out to `get/worker.rs`, who look for each block at hand
//! (`get/local.rs`, `get/seed.rs`) and then ask the servers: which of them, how and for how much is
//! `get/servers.rs`, what is asked and what the answer is worth `get/ask.rs` and, for whole files,
//! `get/mirror.rs`; who else may be asked `get/peers.rs`; one request is `get/fetch.rs`. What comes back exists only verified, goes by
//! `get/parts.rs`, many blocks at once, to `get/output.rs`.

mod ask;
mod fetch;
mod flow;
mod list;
mod local;
mod mirror;
mod output;
mod parts;
mod peers;
mod proxy;
mod seed;
mod servers;
mod url;
mod worker;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use crate::console;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::BlockDir;
use fetch::{Fetcher, Tally};
use flow::{Flow, Summary};
use list::{List, Wanted};
use mirror::Mirror;
use output::{Output, Stream};
use parts::Spare;
use seed::Seed;
use servers::Servers;
pub use url::Url;
use worker::{Shared, Workers};

/// What the command line asks for.
pub struct Options {
    pub servers: Vec<Url>,
    /// Files with more of them.
    pub server_lists: Vec<PathBuf>,
    /// Plain copies of the whole file.
    pub mirrors: Vec<Url>,
    /// Whether each run of blocks begins at another server.
    pub spread: bool,
    /// Whether servers are asked for more of them.
    pub peers: bool,
    /// A file's name, or `-`.
    pub hashlist: OsString,
    /// None: standard output.
    pub output: Option<PathBuf>,
    pub in_place: bool,
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

/// Runs the command.
///
/// # Errors
/// Exit code 2 for a list that is not one, before anything is fetched where it is a file; 3 for
/// blocks that nobody has; 1 for what fails on this machine.
pub fn run(options: &Options) -> Result<()> {
    let mut report = Report::new(options);
    let list = List::open(&options.hashlist)?;
    report.length = list.length();
    let servers = servers(options)?;
    report.has_servers = !(servers.is_empty() && options.mirrors.is_empty());
    let seeds: Result<Vec<Seed>> = options.seeds.iter().map(|path| Seed::open(path)).collect();
    let seeds = seeds?;
    if let Some(blocks) = blocks_already_right(options, &list)? {
        let at_hand = Summary {
            at_hand: blocks,
            ..Summary::default()
        };
        return report.done(&at_hand, Tally::default());
    }
    let last = list.last();
    let (shared, mut stream) = gather(options, list, servers, seeds)?;
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
        place.finish(summary.size)?;
    }
    let done = report.done(&summary, shared.fetcher.tally());
    done.map_err(|error| shared.servers.reasons().into_iter().fold(error, Error::and))
}

/// Opens the output, and puts together what the workers share; the stream, if the output is one.
fn gather(
    options: &Options,
    mut list: List,
    servers: Vec<Url>,
    mut seeds: Vec<Seed>,
) -> Result<(Arc<Shared>, Option<Stream>)> {
    let (connect_timeout, timeout) = (options.connect_timeout, options.timeout);
    let everybody = [&servers[..], &options.mirrors].concat();
    let fetcher = Fetcher::new(
        &everybody,
        options.peers,
        options.jobs,
        connect_timeout,
        timeout,
    )?;
    let fetcher = Arc::new(fetcher);
    let longest = flow::longest_run(options.jobs);
    let tell: fn(String) = if options.verbose { tell } else { |_| {} };
    let mirrors = options.mirrors.clone();
    let keep = options.dir.as_ref().filter(|_| options.keep);
    let keep = keep.map(BlockDir::writer).transpose()?;
    // Last, so that whatever else is wrong leaves no FILE.part.
    let (place, stream) = match Output::open(options.output.as_deref(), options.in_place, &list)? {
        Output::Place(place) => (Some(place), None),
        Output::Stream(stream) => (None, Some(stream)),
    };
    if let Some(place) = &place {
        list.tell_last();
        seeds.extend(place.before().and_then(|before| Seed::new(before).ok()));
    }
    let mut servers = Servers::new(servers, mirrors.clone(), longest, options.spread, tell);
    if options.peers {
        let find = peers::finder(Arc::clone(&fetcher), timeout);
        servers.find_peers(find, timeout, options.verbose);
    }
    let shared = Shared {
        list: Mutex::new(list),
        mirrors: mirrors.iter().map(|_| Mirror::default()).collect(),
        servers,
        fetcher,
        place,
        // A look into one that is not there is a system call a block.
        dir: options.dir.clone().filter(|dir| dir.path().exists()),
        keep: RwLock::new(keep),
        seeds,
        spare: Spare::new(longest),
        stop: AtomicBool::new(false),
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

/// The blocks of FILE, if it is all that the list says: then it is not touched. A list that can
/// be read only once tells nothing beforehand.
fn blocks_already_right(options: &Options, list: &List) -> Result<Option<u64>> {
    let (Some(path), Some(length)) = (&options.output, list.length()) else {
        return Ok(None);
    };
    let right = output::is_right(path, &mut List::open(&options.hashlist)?)?;
    Ok(right.then_some(length))
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
            name: options.hashlist.display().to_string(),
            length: None,
            has_servers: false,
            started: Instant::now(),
        }
    }

    /// Sums up as far as that is asked for.
    ///
    /// # Errors
    /// Exit code 3 when blocks are missing.
    fn done(&self, summary: &Summary, tally: Tally) -> Result<()> {
        let (options, name) = (self.options, &self.name);
        let Summary {
            at_hand,
            fetched,
            missing,
            ..
        } = *summary;
        let (blocks, seconds) = (summary.blocks(), self.started.elapsed().as_secs_f64());
        if blocks == 0 && !options.quiet {
            console::complain(format_args!(
                "get {name}: the hashlist is empty, so the file is; a failed download of the list looks the same"
            ));
        }
        if options.verbose {
            console::complain(format_args!(
                "get {name}: {blocks} blocks: {at_hand} at hand, {fetched} fetched, {missing} missing"
            ));
        }
        let stats = options.stats.then(|| {
            format!(
                "blocks={blocks} local={at_hand} fetched={fetched} missing={missing} bytes={} requests={} seconds={seconds:.3}",
                tally.bytes, tally.requests
            )
        });
        if missing > 0 {
            return Err(self.missing(summary).closing(stats));
        }
        stats.into_iter().for_each(console::print_line);
        Ok(())
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
