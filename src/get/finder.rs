//! Finds blocks: those that are local, then those that servers have, a run of blocks at once. What it
//! finds goes into its sink; it never writes the output. One finder a thread.

use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;

use super::block_ref::BlockRef;
use super::output::Place;
use super::output::sink::{Sink, TaskReport};
use super::sources::Sources;
use super::sources::local::{Local, OwnLists};
use super::sources::outcome::Pending;
use super::sources::servers::{RunStart, Servers};
use crate::error::Result;

pub struct Finder<'a> {
    sources: &'a Sources,
    /// Asked one after the other.
    servers: Vec<&'a Servers>,
    local: Local<'a>,
    sink: Sink<'a>,
}

impl<'a> Finder<'a> {
    /// For blocks of a file. Tells `results` of blocks as they come.
    pub fn of_file(
        sources: &'a Sources,
        place: Option<&'a Place>,
        results: &'a SyncSender<Result<TaskReport>>,
    ) -> Self {
        let seeds = place.map_or(&[][..], Place::seeds);
        Finder {
            sources,
            servers: vec![&sources.servers, &sources.mirrors],
            local: Local::of_file(sources, place.map(Place::old), seeds),
            sink: Sink::new(&sources.keep, &sources.spare, Some(results)),
        }
    }

    /// For blocks of a list, which no mirror has.
    pub fn of_list(sources: &'a Sources, own_lists: Option<OwnLists<'a>>) -> Self {
        Finder {
            sources,
            servers: vec![&sources.servers],
            local: Local::of_list(sources, own_lists),
            sink: Sink::new(&sources.keep, &sources.spare, None),
        }
    }

    /// Says of the blocks to come whether they failed before.
    pub fn set_retry(&mut self, is_retry: bool) {
        self.sink.is_retry = is_retry;
    }

    /// Begins a run of blocks at the server whose turn it is.
    pub fn begin_run(&self) -> RunStart<'a> {
        self.sources.begin_run()
    }

    /// Finds blocks, local or not.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn find(&mut self, wanted: Vec<BlockRef>) -> Result<TaskReport> {
        let run = self.begin_run();
        let absent = self.find_local(wanted)?;
        self.fetch(absent, run)
    }

    /// Puts the local blocks into the sink; returns the others.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn find_local(&mut self, mut wanted: Vec<BlockRef>) -> Result<Vec<BlockRef>> {
        let mut failure = None;
        wanted.retain(|wanted| {
            let found = self.local.find(wanted, &mut self.sink);
            !found.unwrap_or_else(|error| {
                failure = Some(error);
                true
            })
        });
        failure.map_or(Ok(wanted), Err)
    }

    /// Sends on the blocks that were found, where enough of them are there.
    pub fn send_on(&mut self) {
        self.sink.flush_if_due();
    }

    pub fn is_stopped(&self) -> bool {
        self.sources.stop.load(Relaxed)
    }

    /// Fetches `absent` blocks, of which `run` is the first. Reports all that was found since the last
    /// report, and what is missing.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn fetch(&mut self, mut absent: Vec<BlockRef>, run: RunStart<'a>) -> Result<TaskReport> {
        // Local blocks need not wait for the others.
        self.sink.flush();
        let mut report = TaskReport {
            is_retry: self.sink.is_retry,
            finished: true,
            ..TaskReport::default()
        };
        let mut begun = Some(run);
        while !absent.is_empty() && !self.is_stopped() {
            let run = begun.take().unwrap_or_else(|| self.begin_run());
            let later = absent.split_off(run.length.min(absent.len()));
            let missing = self.ask(absent, run)?;
            report.missing.extend(missing.blocks);
            report.transient |= missing.transient;
            absent = later;
        }
        report.parts = self.sink.take();
        Ok(report)
    }

    /// Asks the servers for a run; returns what is missing.
    fn ask(&mut self, wanted: Vec<BlockRef>, mut run: RunStart) -> Result<Pending> {
        let mut missing = Pending {
            blocks: wanted,
            transient: false,
        };
        for servers in &self.servers {
            let run = mem::take(&mut run);
            self.sources
                .fetch_from(servers, &mut missing, run, &mut self.sink)?;
            // A mirror that ignores ranges sends the file from its start.
            missing.blocks.sort_unstable_by_key(|wanted| wanted.number);
        }
        Ok(missing)
    }
}
