//! What `get` says at the end, and exit code 3.

use std::time::Instant;

use super::client::Tally;
use super::dry_run::Count;
use super::options::{Hashlist, Options};
use super::schedule::Summary;
use crate::console;
use crate::error::{Error, Result};

/// What is said at the end.
pub struct Report<'a> {
    options: &'a Options,
    /// The list's, and its lines.
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

    /// Sums up as far as that is asked for.
    ///
    /// # Errors
    /// Exit code 3 when blocks are missing.
    pub fn done(&self, mut summary: Summary, tally: Tally) -> Result<()> {
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
    pub fn counted(&self, count: &Count) -> Result<()> {
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
    pub fn warn_of_rights(&self, grants_less: bool) {
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
