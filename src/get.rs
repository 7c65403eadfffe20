//! `psync get`: hashlist to blocks to output.
//!
//! This file owns the story: what is opened in which order. Its rooms, each of which uses those before
//! it: `block_ref.rs` is one line of the list; `client.rs` one request; `output/sink.rs` verified blocks
//! on their way; `list.rs` what is wanted; `output.rs` where it goes; `sources.rs` where it comes from;
//! `finder.rs` looks for one block after the other, `list/tree.rs` for the list under a root,
//! `schedule.rs` has many do so at once; `report.rs` sums up.

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
use std::path::{Path, PathBuf};
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
use output::existing::{self, OldFile};
use output::sink::{Keep, Spare};
use output::target::Target;
use report::Report;
use schedule::{Scheduler, Summary};
use sources::seed::{OwnLists, Seed};
use sources::servers::Servers;
use sources::{Sources, peers};
use workers::{Shared, Workers};

pub use client::url::Url;
pub use options::{Hashlist, Options};

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
    let start = match &options.hashlist {
        Hashlist::File(name) => Start::List(List::open(name)?),
        Hashlist::Root(hash) => Start::Root(*hash),
    };
    let mut servers = servers(options)?;
    report.has_servers = !(servers.is_empty() && options.mirrors.is_empty());
    // A dry run writes nothing.
    let own_lists = match options.dry_run {
        true => OwnLists::Derived,
        false => OwnLists::Written,
    };
    let open = |path: &PathBuf| Seed::open(path, own_lists);
    let seeds = options.seeds.iter().map(open).collect::<Result<_>>()?;
    let target = options.output.as_deref().map(Target::find).transpose()?;
    if let (Some(target), Hashlist::File(name)) = (&target, &options.hashlist) {
        check_list_stays(target, Path::new(name))?;
    }
    if options.dry_run {
        let count = count(options, start, seeds, target.as_ref())?;
        return report.counted(&count);
    }
    let mut old = None;
    if let Some(target) = target.as_ref().filter(|target| target.is_regular()) {
        old = OldFile::open(target, options.in_place, OwnLists::Written)?;
        if let Some(old) = &mut old
            && let Some(blocks) = blocks_already_right(options, old, &start)?
        {
            existing::sync_existing(&target.path)?;
            let at_hand = Summary {
                at_hand: blocks,
                ..Summary::default()
            };
            return report.done(at_hand, Tally::default());
        }
    }
    // Before any server is asked: what cannot be written need not be fetched.
    let output = Output::open(target, options.in_place, old)?;
    if let Some(interface) = options.lan {
        servers = servers_near(interface, servers, options.quiet);
        report.has_servers |= !servers.is_empty();
    }
    let sources = Arc::new(gather(options, servers, seeds)?);
    let check_size = |least| output.check_size(least);
    let list = find_list(options, start, &sources, output.seeds(), &check_size);
    let told = put_together(options, list, output, &sources, &mut report);
    told.map_err(|error| match error.is_missing() {
        true => sources
            .reasons(options.verbose)
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

/// What the work starts from.
#[allow(clippy::large_enum_variant, reason = "there is one")]
enum Start {
    List(List),
    /// The root of a list that is yet to be found.
    Root(Hash),
}

/// What is here of the file, for `--dry-run`.
fn count(
    options: &Options,
    start: Start,
    seeds: Vec<Seed>,
    target: Option<&Target>,
) -> Result<Count> {
    let files = target.map(|target| Files::open(target, options.in_place));
    let files = files.transpose()?.unwrap_or_default();
    if let Start::Root(root) = &start
        && let Some(blocks) = files.has_root(root)
    {
        return Ok(Count::complete(blocks));
    }
    let sources = Arc::new(gather(options, Vec::new(), seeds)?);
    let mut list = match find_list(options, start, &sources, files.seeds(), &|_| Ok(())) {
        Err(error) if error.is_missing() => return Ok(Count::without_root()),
        list => list?,
    };
    let progress = Progress::new(!options.quiet, false);
    dry_run::count(&mut list, &sources, &files, progress)
}

/// The work, once it is known that there is some: with a list, or what came of looking for one.
fn put_together(
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
            // Others may be at it too. A mirror that ignores ranges is read through for each step back.
            if (options.lan.is_some() || options.peers) && options.mirrors.is_empty() {
                list = list.shuffle()?;
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

/// Puts together where blocks may come from. Finds the peers, if they are asked for.
fn gather(options: &Options, servers: Vec<Url>, seeds: Vec<Seed>) -> Result<Sources> {
    let (connect_timeout, timeout) = (options.connect_timeout, options.timeout);
    let everybody = [&servers[..], &options.mirrors].concat();
    let longest = workers::longest_run(options.jobs);
    let tell: fn(String) = if options.verbose { tell } else { |_| {} };
    let keep = options.dir.as_ref().filter(|_| options.keep);
    let client = Client::new(
        &everybody,
        options.peers,
        options.jobs,
        connect_timeout,
        timeout,
    )?;
    let client = Arc::new(client);
    let peers = match options.peers {
        true => peers::find(&client, &servers, connect_timeout, tell),
        false => Vec::new(),
    };
    Ok(Sources {
        servers: Servers::new(servers, peers, longest, options.spread, tell),
        mirrors: Servers::mirrors(options.mirrors.clone(), longest, tell),
        client,
        keep: Keep::new(keep.map(BlockDir::writer).transpose()?),
        // A look into one that is not there is a system call a block.
        dir: options.dir.clone().filter(|dir| dir.path().exists()),
        seeds,
        spare: Spare::new(longest),
        stop: AtomicBool::new(false),
    })
}

fn tell(text: String) {
    console::complain(text);
}

/// The list that the work starts from. `check_size` gets the bytes that the file has at least, before
/// a list under a root is fetched.
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

/// The blocks of FILE, if it is all that the list says: then it is not touched. A list that can
/// be read only once tells nothing beforehand.
fn blocks_already_right(
    options: &Options,
    old: &mut OldFile,
    start: &Start,
) -> Result<Option<u64>> {
    match (start, &options.hashlist) {
        (Start::Root(root), _) => Ok(old.has_root(root)),
        (Start::List(list), Hashlist::File(name)) if list.length().is_some() => {
            let is_right = old.has_list(&mut List::open(name)?)?;
            Ok(list.length().filter(|_| is_right))
        }
        _ => Ok(None),
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
                servers.extend(Url::on_lan(server));
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
