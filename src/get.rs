//! `psync get`: hashlist to blocks to output.
//!
//! This file owns the story: the order of all openings. It reads no block and sends no request itself. Its
//! rooms:
//!
//! - `options.rs`: what the command line asks for.
//! - `block_ref.rs`: one line of the list.
//! - `rounds.rs`: when to try failed blocks again.
//! - `client.rs`: one HTTP request.
//! - `list.rs`: the wanted blocks; `list/tree.rs` fetches the list under a root.
//! - `output.rs`: where blocks go; `output/sink.rs` holds verified blocks on their way there.
//! - `sources.rs`: where blocks come from.
//! - `finder.rs`: finds blocks, on one thread.
//! - `dry_run.rs`: counts the local blocks with `--dry-run`.
//! - `workers.rs`: the threads with a finder each.
//! - `schedule.rs`: gives the workers tasks, and writes what they find.
//! - `report.rs`: sums up.
//!
//! Their words for blocks:
//!
//! - A block is wanted when the list names it, absent when this machine lacks it, missing when no source has
//!   it. It failed when no source gave it but a server may do so later.
//! - Task: what the scheduler gives a worker: lines to take off the list, or failed blocks. The window limits
//!   the blocks of all tasks in flight.
//! - Run: absent blocks of one task, for which the finder asks one server after the other.
//! - Batch: the blocks of one `POST /blocks`, at most a run.
//! - Span: verified blocks of one origin that follow each other in the file. A row is the buffer of its bytes.
//! - Piece: neighbouring lines that stay together in a shuffled list.
//! - Round: another try for all failed blocks.

mod block_ref;
mod client;
mod dry_run;
mod finder;
mod list;
mod options;
mod output;
mod report;
mod rounds;
mod schedule;
mod sources;
mod workers;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::console;
use crate::error::{Cause, Error, Result};
use crate::file;
use crate::hash::Hash;
use crate::lan;
use crate::progress::Progress;
use crate::store::BlockDir;
use client::{Client, Tally};
use dry_run::{Count, Files};
use list::List;
use list::tree::ListTree;
use output::Output;
use output::existing::OldFile;
use output::sink::{Keep, Spare};
use output::target::{Kind, Target};
use report::Report;
use schedule::{Scheduler, Summary};
use sources::seed::Seed;
use sources::servers::Servers;
use sources::{Sources, peers};
use workers::{Shared, Workers};

pub use client::url::Url;
pub use options::{Hashlist, Options};

/// Runs the command.
///
/// # Errors
/// Exit code 2 for a malformed list, before any request where the list is a file; 3 for blocks that no
/// source has; 1 for what fails on this machine.
pub fn run(options: Options) -> Result<()> {
    let options = &match options.dry_run {
        true => options.alone(),
        false => options,
    };
    let mut report = Report::new(options);
    // A file's list comes first: nothing else happens before all of it is valid.
    let mut start = match &options.hashlist {
        Hashlist::File(name) => Start::List(List::open(name)?),
        Hashlist::Root(hash) => Start::Root(*hash),
    };
    let mut servers = servers(options)?;
    report.has_servers = !(servers.is_empty() && options.mirrors.is_empty());
    let seeds = options.seeds.iter().map(|path| Seed::open(path));
    let seeds = seeds.collect::<Result<Vec<Seed>>>()?;
    let find = |path| Target::find(path, options.in_place);
    let target = options.output.as_deref().map(find).transpose()?;
    if let (Some(target), Hashlist::File(name)) = (&target, &options.hashlist) {
        check_list_stays(target, Path::new(name))?;
    }
    if options.dry_run {
        let count = count(options, start, seeds, target.as_ref())?;
        return report.counted(&count);
    }
    // Before any request: an output that refuses writes needs none.
    let output = match open_output(target, &mut start)? {
        Opened::Output(output) => output,
        Opened::Complete(local) => {
            let summary = Summary {
                local,
                ..Summary::default()
            };
            return report.done(summary, Tally::default());
        }
    };
    if let Some(interface) = options.lan {
        servers = servers_near(interface, servers, options.quiet);
        report.has_servers |= !servers.is_empty();
    }
    let sources = Arc::new(gather(options, servers, seeds)?);
    let check_size = |least| output.check_size(least);
    let list = find_list(options, start, &sources, output.seeds(), &check_size);
    let done = fetch(options, list, output, &sources, &mut report);
    done.map_err(|error| match error.is_missing() {
        true => sources
            .reasons(options.verbose)
            .into_iter()
            .fold(error, Error::and),
        false => error,
    })
}

/// # Errors
/// When FILE or FILE.part is the list, which psync trusts: a write would destroy it.
fn check_list_stays(target: &Target, list: &Path) -> Result<()> {
    for path in [&target.path, &target.part_path()] {
        if file::is_same(path, list) {
            let path = path.display();
            let problem = format!("-o {path} is HASHLIST itself, which would be lost");
            return Err(Error::usage("get", problem));
        }
    }
    Ok(())
}

/// What the work starts from.
#[allow(clippy::large_enum_variant, reason = "there is one")]
enum Start {
    List(List),
    /// The root of a list that comes from the sources.
    Root(Hash),
}

/// Counts the local blocks, for `--dry-run`.
fn count(
    options: &Options,
    start: Start,
    seeds: Vec<Seed>,
    target: Option<&Target>,
) -> Result<Count> {
    let files = target.map(Files::open).transpose()?.unwrap_or_default();
    if let (Start::Root(root), Some(old)) = (&start, &files.old_file)
        && let Some(blocks) = old.blocks_if_root_is(root)
    {
        return Ok(Count::complete(blocks));
    }
    seeds.iter().for_each(Seed::write_nothing);
    let sources = Arc::new(gather(options, Vec::new(), seeds)?);
    let check_size = |least| files.check_end(least);
    let mut list = match find_list(options, start, &sources, files.seeds(), &check_size) {
        Err(error) if error.is_missing() => return Ok(Count::without_root()),
        list => list?,
    };
    let progress = Progress::new(!options.quiet, false);
    dry_run::count(&mut list, &sources, &files, progress)
}

/// Fetches the blocks of `list`, or reports why there is no list.
fn fetch(
    options: &Options,
    list: Result<List>,
    output: Output,
    sources: &Arc<Sources>,
    report: &mut Report,
) -> Result<()> {
    let mut list = match list {
        Err(error) if error.is_missing() => {
            let unlisted = Summary {
                unlisted: Some(error),
                ..Summary::default()
            };
            return report.done(unlisted, sources.client.tally());
        }
        list => list?,
    };
    report.length = list.length();
    let (place, stream) = match output {
        Output::Stream(stream) => (None, Some(stream)),
        Output::Place(mut place) => {
            place.begin();
            list.mark_last_line();
            // Other boxes may fetch it too. A mirror that ignores ranges starts again for each step back.
            if (options.lan.is_some() || options.peers) && options.mirrors.is_empty() {
                if list.size().is_some() {
                    list.fetch_all()?;
                }
                list.shuffle()?;
            }
            (Some(*place), None)
        }
    };
    let shared = Arc::new(Shared {
        sources: Arc::clone(sources),
        list: Mutex::new(list),
        place,
    });
    let workers = Workers::start(options.jobs, &shared)?;
    let progress = Progress::new(!options.quiet, options.output.is_none());
    let scheduler = Scheduler::new(
        &shared,
        &report.name,
        stream,
        workers,
        progress,
        options.retry,
    );
    let summary = scheduler.run()?;
    if summary.missing == 0
        && let Some(place) = &shared.place
    {
        let grants_less = place.finish(summary.size)?;
        report.warn_of_rights(grants_less);
    }
    report.done(summary, sources.client.tally())
}

/// Gathers all sources of blocks. Finds the peers, with `--peers`.
fn gather(options: &Options, servers: Vec<Url>, seeds: Vec<Seed>) -> Result<Sources> {
    let (peers, jobs, connect_timeout) = (options.peers, options.jobs, options.connect_timeout);
    let listed = [&servers[..], &options.mirrors].concat();
    let longest = workers::longest_run(jobs);
    let warn: fn(String) = match options.verbose {
        true => console::complain,
        false => |_| {},
    };
    let keep = options.dir.as_ref().filter(|_| options.keep);
    let client = Client::new(&listed, peers, jobs, connect_timeout, options.timeout)?;
    let client = Arc::new(client);
    let peers = match peers {
        true => peers::find(&client, &servers, connect_timeout, warn),
        false => Vec::new(),
    };
    Ok(Sources {
        servers: Servers::new(servers, peers, longest, options.spread, warn),
        mirrors: Servers::mirrors(options.mirrors.clone(), longest, warn),
        client,
        keep: Keep::new(keep.map(BlockDir::writer).transpose()?),
        // A look into an absent directory costs a system call a block.
        dir: options.dir.clone().filter(|dir| dir.path().exists()),
        seeds,
        spare: Spare::new(longest),
        stop: AtomicBool::new(false),
    })
}

/// The list that the work starts from. `check_size` gets the least size of the file in bytes, before any
/// request for a list under a root.
fn find_list(
    options: &Options,
    start: Start,
    sources: &Arc<Sources>,
    seeds: Vec<Arc<Seed>>,
    check_size: &dyn Fn(u64) -> Result<()>,
) -> Result<List> {
    match start {
        Start::List(list) => {
            check_size(list.least_size().unwrap_or(0))?;
            Ok(list)
        }
        Start::Root(hash) => {
            let tree = ListTree::new(sources, hash, seeds, options.retry);
            let root = tree.root_block()?;
            check_size(root.size)?;
            tree.list(root)
        }
    }
}

/// What comes of opening the output.
enum Opened {
    Output(Output),
    /// FILE has these blocks and no other: there is nothing to do.
    Complete(u64),
}

fn open_output(target: Option<Target>, start: &mut Start) -> Result<Opened> {
    let target = match target {
        Some(target) if target.kind == Kind::Regular => target,
        other => return Output::open(other, None).map(Opened::Output),
    };
    let mut old_file = OldFile::open(&target)?;
    if !target.in_place {
        return match blocks_already_right(old_file.as_mut(), start)? {
            Some(blocks) => Ok(Opened::Complete(blocks)),
            None => Output::open(Some(target), old_file).map(Opened::Output),
        };
    }
    // The lock comes first, so that what is found in FILE still holds as it is written.
    let mut output = Output::open(Some(target), None);
    let file = match &mut output {
        Ok(Output::Place(place)) => Some(&mut place.written),
        // A FILE that refuses writes may be right all the same.
        _ => old_file.as_mut(),
    };
    match blocks_already_right(file, start)? {
        Some(blocks) => Ok(Opened::Complete(blocks)),
        None => output.map(Opened::Output),
    }
}

/// The number of blocks of FILE, if it is all that the list says: then psync brings it to the disk, and does not
/// touch it. A list that can be read only once tells nothing beforehand.
fn blocks_already_right(file: Option<&mut OldFile>, start: &mut Start) -> Result<Option<u64>> {
    let Some(file) = file else { return Ok(None) };
    let blocks = match start {
        Start::Root(root) => file.blocks_if_root_is(root),
        Start::List(list) if list.length().is_some() => {
            let blocks = file.compare_with_list(list)?;
            list.rewind()?;
            blocks
        }
        Start::List(_) => None,
    };
    if blocks.is_some() {
        file.sync()?;
    }
    Ok(blocks)
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

/// The servers that answer in the local network, then those `listed`.
// Inlined, it would double half of its caller's code.
#[inline(never)]
fn servers_near(interface: Ipv4Addr, listed: Vec<Url>, is_quiet: bool) -> Vec<Url> {
    let answers = lan::ask(interface).unwrap_or_else(|cause| {
        if !is_quiet {
            let (cause, advice) = (Cause(&cause), lan::ADVICE);
            console::complain(format_args!("ask the local network: {cause}; {advice}"));
        }
        Vec::new()
    });
    let near = answers.into_iter().filter_map(Url::on_lan);
    near.chain(listed).collect()
}
