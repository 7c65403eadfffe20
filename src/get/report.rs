//! What `get` says at the end, and exit code 3.
//!
//! This file owns the wording of the summary. It counts nothing itself.

use std::time::Instant;

use super::block_ref::BlockRef;
use super::client::Tally;
use super::dry_run::Count;
use super::options::{Hashlist, Options};
use super::schedule::Summary;
use crate::console;
use crate::error::{Error, Result};

/// What the messages at the end need to know of the run.
pub struct Report<'a> {
    options: &'a Options,
    /// The list's name, and its lines where known.
    pub name: String,
    pub length: Option<u64>,
    pub has_servers: bool,
    started: Instant,
}

impl<'a> Report<'a> {
    pub fn new(options: &'a Options) -> Self {
        Report {
            options,
            name: options.hashlist.to_string(),
            length: None,
            has_servers: false,
            started: Instant::now(),
        }
    }

    /// Sums up as far as the options ask for it.
    ///
    /// # Errors
    /// Exit code 3 when blocks are missing.
    pub fn done(&self, mut summary: Summary, tally: Tally) -> Result<()> {
        let (blocks, seconds) = (summary.blocks(), self.started.elapsed());
        let (local, fetched, missing) = (summary.local, summary.fetched, summary.missing);
        self.warn_of_emptiness(blocks);
        if self.options.verbose {
            console::complain(format_args!(
                "get {}: {blocks} blocks: {local} at hand, {fetched} fetched, {missing} missing",
                self.name
            ));
        }
        let Tally { bytes, requests } = tally;
        let stats = self.options.stats.then(|| {
            format!(
                "blocks={blocks} local={local} fetched={fetched} missing={missing} bytes={bytes} requests={requests} seconds={}.{:03}",
                seconds.as_secs(), seconds.subsec_millis()
            )
        });
        let unlisted = summary.unlisted.take();
        let failure = unlisted.or_else(|| (missing > 0).then(|| self.missing(&summary)));
        if let Some(error) = failure {
            return Err(error.closing(stats));
        }
        stats.into_iter().for_each(console::stderr_line);
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
    /// Exit code 3 when blocks are missing, or FILE is not yet complete.
    pub fn counted(&self, count: &Count) -> Result<()> {
        let (blocks, local, missing) = (count.blocks, count.local, count.missing);
        self.warn_of_emptiness(blocks);
        let bytes = count.bytes;
        let line = format!("blocks={blocks} local={local} missing={missing} bytes={bytes}\n");
        console::Stdout::new()?.write(line.as_bytes())?;
        let cause = match &self.options.output {
            _ if blocks == 0 && missing > 0 => "its root block is not here".to_owned(),
            _ if missing > 0 => format!("{missing} of {blocks} blocks are not here"),
            Some(file) if !count.is_complete => format!(
                "{} is not complete, though all blocks are here; run the same command without --dry-run",
                file.display()
            ),
            _ => return Ok(()),
        };
        Err(Error::missing("get", &self.name, cause))
    }

    /// Warns that FILE grants less than it did.
    pub fn warn_of_rights(&self, grants_less: bool) {
        if let (true, Some(file)) = (grants_less, &self.options.output) {
            console::complain(format_args!(
                "keep the rights of {}: the owner, group, mode or ACL was refused, so fewer users may use it now",
                file.display()
            ));
        }
    }

    fn missing(&self, summary: &Summary) -> Error {
        let Summary { missing, named, .. } = summary;
        if let Some(first) = named.first().filter(|_| summary.is_stream) {
            // A stream ends at the first, so that one name says all.
            let of = self.length.map(|length| format!(" of {length}"));
            let (number, of) = (first.number + 1, of.unwrap_or_default());
            let who = match self.has_servers {
                true => "no server gave it",
                false => "it is not at hand, and no server is given",
            };
            let cause = format_args!("block {number}{of}: {who}; the output ends before it");
            return Error::missing("get", first.hash, cause);
        }
        let name = |block: &BlockRef| format!("{} (block {})", block.hash, block.number + 1);
        let mut names: Vec<String> = named.iter().map(name).collect();
        if *missing > names.len() as u64 {
            names.push("...".to_owned());
        }
        let (blocks, names) = (summary.blocks(), names.join(", "));
        let cause = format_args!(
            "{missing} of {blocks} blocks could not be had: {names}; the same command later goes on from here"
        );
        Error::missing("get", &self.name, cause)
    }
}
