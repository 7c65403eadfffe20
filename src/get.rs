//! `psync get`: hashlist to blocks to output.
//!
//! This file owns the story: a hash is looked for at hand, then asked of the servers in order;
//! what comes back exists only verified, and is written in the order of the list. Where blocks
//! lie at hand is `get/local.rs`, which server is asked `get/servers.rs`, how one is asked
//! `get/fetch.rs`, where blocks go `get/output.rs`.

mod fetch;
mod list;
mod local;
mod output;
mod proxy;
mod servers;

use std::ffi::OsString;
use std::time::Duration;

use crate::block::Block;
use crate::console;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::store::BlockDir;
use fetch::Fetcher;
use list::List;
use local::Local;
use output::Stream;
use servers::Servers;
pub use servers::Url;

/// What the command line asks for.
pub struct Options {
    pub servers: Vec<Url>,
    /// A file's name, or `-`.
    pub hashlist: OsString,
    /// Looked in first. None where no directory is known.
    pub dir: Option<BlockDir>,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub quiet: bool,
    pub verbose: bool,
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for a list that is not one, before anything is fetched where it is a file; 3 for
/// the first block that nobody has; 1 for what fails on this machine.
pub fn run(options: &Options) -> Result<()> {
    let mut list = List::open(&options.hashlist)?;
    let mut output = Stream::new()?;
    let give_up = |text: String| {
        if options.verbose {
            console::complain(text);
        }
    };
    let sources = Sources {
        servers: Servers::new(options.servers.clone(), &give_up),
        fetcher: Fetcher::new(&options.servers, options.connect_timeout, options.timeout)?,
    };
    let mut worker = Worker {
        sources: &sources,
        local: Local::new(options.dir.as_ref()),
        found_at_hand: 0,
        fetched: 0,
    };
    let mut number: u64 = 0;
    while let Some(hash) = list.next()? {
        number += 1;
        let block = worker
            .find(&hash)?
            .ok_or_else(|| sources.missing(&hash, number, list.length()))?;
        output.write(&block)?;
    }
    if number == 0 && !options.quiet {
        console::complain(format_args!(
            "get {}: the hashlist is empty, so the file is; a failed download of the list looks the same",
            list.name()
        ));
    }
    if options.verbose {
        let (at_hand, fetched) = (worker.found_at_hand, worker.fetched);
        console::complain(format_args!(
            "get {}: {number} blocks: {at_hand} at hand, {fetched} fetched",
            list.name()
        ));
    }
    Ok(())
}

/// What all workers share.
struct Sources<'a> {
    servers: Servers<'a>,
    fetcher: Fetcher,
}

impl Sources<'_> {
    /// The failure to get one block, with each server's own reason.
    fn missing(&self, hash: &Hash, number: u64, of: Option<u64>) -> Error {
        let of = of.map_or_else(String::new, |of| format!(" of {of}"));
        let reasons = self.servers.reasons();
        let who = if reasons.is_empty() {
            "it is not at hand, and no server is given"
        } else {
            "no server gave it"
        };
        let cause = format!("block {number}{of}: {who}; the output ends before it");
        reasons
            .into_iter()
            .fold(Error::missing("get", hash, cause), Error::and)
    }
}

/// Finds blocks one after the other; any number can be at work on the same sources.
struct Worker<'a> {
    sources: &'a Sources<'a>,
    local: Local,
    found_at_hand: u64,
    fetched: u64,
}

impl Worker<'_> {
    /// A block from where it is nearest, or none where nobody has it.
    fn find(&mut self, hash: &Hash) -> Result<Option<Block<Vec<u8>>>> {
        if let Some(block) = self.local.find(hash)? {
            self.found_at_hand += 1;
            return Ok(Some(block));
        }
        let block = self
            .sources
            .servers
            .fetch(|url| self.sources.fetcher.fetch(url, hash))?;
        self.fetched += u64::from(block.is_some());
        Ok(block)
    }
}
