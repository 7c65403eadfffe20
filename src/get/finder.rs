//! Finds blocks: first the local ones, then those that servers have, a run of blocks at once.
//!
//! This file owns that order. What it finds goes into its sink; it never writes the output. One finder a
//! thread.

use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;

use super::block_ref::BlockRef;
use super::output::Place;
use super::output::sink::{Sink, TaskReport};
use super::sources::Sources;
use super::sources::local::{Local, SeedLists};
use super::sources::outcome::Pending;
use super::sources::servers::{RunStart, Servers};
use crate::error::Result;

pub struct Finder<'a> {
    sources: &'a Sources,
    /// In the order in which they are asked.
    servers: Vec<&'a Servers>,
    local: Local<'a>,
    sink: Sink<'a>,
}

impl<'a> Finder<'a> {
    /// For blocks of a file. Sends blocks to `reports` as they come.
    pub fn of_file(
        sources: &'a Sources,
        place: Option<&'a Place>,
        reports: &'a SyncSender<Result<TaskReport>>,
    ) -> Self {
        let old_seeds = place.map_or(&[][..], |place| &place.old_seeds);
        Finder {
            sources,
            servers: vec![&sources.servers, &sources.mirrors],
            local: Local::of_file(sources, place.map(|place| &place.written), old_seeds),
            sink: Sink::new(&sources.keep, &sources.spare, Some(reports)),
        }
    }

    /// For blocks of a list, which no mirror has.
    pub fn of_list(sources: &'a Sources, seed_lists: Option<SeedLists<'a>>) -> Self {
        Finder {
            sources,
            servers: vec![&sources.servers],
            local: Local::of_list(sources, seed_lists),
            sink: Sink::new(&sources.keep, &sources.spare, None),
        }
    }

    /// Finds blocks that failed before.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn retry(&mut self, wanted: &[BlockRef]) -> Result<TaskReport> {
        self.sink.is_retry = true;
        let start = self.sources.begin_run();
        let mut absent = Vec::with_capacity(wanted.len());
        self.find_local(wanted, &mut absent)?;
        let report = self.fetch(absent, start);
        self.sink.is_retry = false;
        report
    }

    /// Puts the local blocks into the sink, and adds the others to `absent`.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn find_local(&mut self, wanted: &[BlockRef], absent: &mut Vec<BlockRef>) -> Result<()> {
        for wanted in wanted {
            if !self.local.find(wanted, &mut self.sink)? {
                absent.push(*wanted);
            }
        }
        Ok(())
    }

    /// Sends the blocks found so far, if a span is complete or has waited long enough.
    pub fn flush_if_due(&mut self) {
        self.sink.flush_if_due();
    }

    pub fn is_stopped(&self) -> bool {
        self.sources.stop.load(Relaxed)
    }

    /// Fetches `absent` blocks, the first run of them as `start` says. Reports all blocks found since the last
    /// report, and the missing ones.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn fetch(&mut self, mut absent: Vec<BlockRef>, start: RunStart) -> Result<TaskReport> {
        // Local blocks need not wait for the others.
        self.sink.flush();
        let mut report = TaskReport {
            is_retry: self.sink.is_retry,
            is_last: true,
            ..TaskReport::default()
        };
        let mut begun = Some(start);
        while !absent.is_empty() && !self.is_stopped() {
            let mut start = begun.take().unwrap_or_else(|| self.sources.begin_run());
            let later = absent.split_off(start.length.min(absent.len()));
            let mut pending = Pending {
                blocks: mem::replace(&mut absent, later),
                transient: false,
            };
            for servers in &self.servers {
                // The run ends with the servers: mirrors are asked in their order.
                let start = mem::take(&mut start);
                self.sources
                    .fetch_from(servers, &mut pending, start, &mut self.sink)?;
                // A mirror that ignores ranges sends the file from its start.
                pending.blocks.sort_unstable_by_key(|wanted| wanted.number);
            }
            report.missing.append(&mut pending.blocks);
            report.transient |= pending.transient;
        }
        report.spans = self.sink.take();
        Ok(report)
    }
}
