//! From the list to the output: gives the workers tasks, writes the blocks that they find, and begins
//! another round for blocks that failed.
//!
//! This file owns the window of blocks in flight, which bounds the memory of a get whatever the size of
//! the file. It runs on one thread, the only one that writes. It asks no source for a block.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Instant;

use super::block_ref::BlockRef;
use super::output::Stream;
use super::output::sink::{End, Origin, Span, Spare, TaskReport};
use super::rounds::Rounds;
use super::workers::{Shared, TASKS_EACH, Task, Workers, longest_run};
use crate::block::{self, BLOCK_SIZE};
use crate::error::{Error, Result};
use crate::mutex::lock;
use crate::progress::Progress;
use crate::root::Root;

/// Tasks of a shuffled list (`list/order.rs`) are short: the current tasks of all workers together are one
/// 128th of its lines, but each has four lines at least. A block in flight comes from afar, even if another
/// box gets it meanwhile: the boxes were asked before. With short tasks eight boxes fetch 1.1 to 1.3 copies of
/// the file, with long ones 2.9.
const SHARES: u64 = 128;
const LEAST_SHARE: usize = 4;

/// Blocks that failed for a transient reason and wait for the next round, at most.
const MAX_FAILED: usize = 1024;

/// Missing blocks that the report names.
const NAMED: usize = 3;

/// What became of the blocks.
#[derive(Default)]
pub struct Summary {
    pub local: u64,
    pub fetched: u64,
    pub missing: u64,
    /// The first missing blocks.
    pub named: Vec<BlockRef>,
    /// Of the file in bytes, once its last block is known.
    pub size: u64,
    pub is_stream: bool,
    /// What ended a list under a root: its further blocks have no names.
    pub unlisted: Option<Error>,
}

impl Summary {
    pub fn blocks(&self) -> u64 {
        self.found() + self.missing
    }

    fn found(&self) -> u64 {
        self.local + self.fetched
    }

    fn add_missing(&mut self, block: &BlockRef) {
        self.missing += 1;
        let is_before = |other: &BlockRef| other.number < block.number;
        let index = self.named.partition_point(is_before);
        self.named.insert(index, *block);
        self.named.truncate(NAMED);
    }
}

/// A stream, and the blocks that wait for their turn in it.
struct InOrder {
    stream: Stream,
    /// Number of the block that comes next.
    next: u64,
    /// Spans that came before their turn, by the number of their first block.
    reorder_buffer: BTreeMap<u64, Span>,
    /// The first missing block: the stream ends before it.
    end: Option<BlockRef>,
}

impl InOrder {
    fn new(stream: Stream) -> Self {
        InOrder {
            stream,
            next: 0,
            reorder_buffer: BTreeMap::new(),
            end: None,
        }
    }

    /// Takes in a span, and writes all spans whose turn has come.
    fn put(&mut self, span: Span, spare: &Spare) -> Result<()> {
        self.reorder_buffer.insert(span.first, span);
        while let Some(span) = self.reorder_buffer.remove(&self.next) {
            self.stream.write(&span)?;
            self.next += span.count();
            spare.put(span.row);
        }
        Ok(())
    }

    fn end_before(&mut self, missing: &BlockRef) {
        if self.end.is_none_or(|end| missing.number < end.number) {
            self.end = Some(*missing);
        }
    }

    /// The missing block, once all blocks before it are written.
    fn reached_end(&self) -> Option<BlockRef> {
        self.end.filter(|end| end.number == self.next)
    }
}

pub struct Scheduler<'a> {
    shared: &'a Shared,
    /// Of the list.
    name: &'a str,
    /// Lines of the list, where known.
    length: Option<u64>,
    /// Bytes of the file, where a root tells them.
    size: Option<u64>,
    /// None where each block has its place.
    stream: Option<InOrder>,
    workers: Workers,
    progress: Progress,
    rounds: Rounds,
    /// The length of a task, as [`Task::Take`] counts it.
    task_blocks: usize,
    /// Tasks without their final report.
    in_flight: usize,
    /// Whether no more lines are wanted: the list ended, or a stream ends before a missing block.
    ended: bool,
    /// What ended the list early. The run goes on to the last block before it, and then ends with it.
    list_error: Option<Error>,
    /// Blocks for the next round.
    failed: Vec<BlockRef>,
    summary: Summary,
}

impl<'a> Scheduler<'a> {
    pub fn new(
        shared: &'a Shared,
        name: &'a str,
        stream: Option<Stream>,
        workers: Workers,
        progress: Progress,
        retry: u32,
    ) -> Self {
        let list = lock(&shared.list);
        let (length, size) = (list.length(), list.size());
        // Short lists are shared out evenly.
        let each = length.map_or(usize::MAX, |length| {
            usize::try_from(length / (workers.count * TASKS_EACH) as u64).unwrap_or(usize::MAX)
        });
        let mut task_blocks = each.clamp(1, longest_run(workers.count));
        if let (true, Some(lines)) = (list.is_shuffled(), length) {
            let share = lines / (SHARES * workers.count as u64);
            let share = usize::try_from(share).unwrap_or(usize::MAX);
            task_blocks = task_blocks.min(share.max(LEAST_SHARE));
        }
        drop(list);
        let summary = Summary {
            is_stream: stream.is_some(),
            ..Summary::default()
        };
        Scheduler {
            shared,
            name,
            length,
            size,
            stream: stream.map(InOrder::new),
            workers,
            progress,
            rounds: Rounds::new(retry),
            task_blocks,
            in_flight: 0,
            ended: false,
            list_error: None,
            failed: Vec::new(),
            summary,
        }
    }

    /// Runs to the end of the list, or to the first missing block of a stream.
    ///
    /// # Errors
    /// What fails on this machine, and a malformed list.
    pub fn run(mut self) -> Result<Summary> {
        let done = self.run_rounds();
        // The workers are left to themselves: a request may take as long as a server takes.
        self.shared.sources.stop.store(true, Relaxed);
        self.shared.sources.keep.end();
        done.map(|()| self.summary)
    }

    fn run_rounds(&mut self) -> Result<()> {
        loop {
            self.give_tasks();
            if self.in_flight > 0 {
                self.take_report()?;
            } else if !self.failed.is_empty() {
                self.begin_round();
            } else if let Some(error) = self.list_error.take() {
                return self.end_early(error);
            } else {
                return self.check_count();
            }
            if let Some(missing) = self.stream.as_ref().and_then(InOrder::reached_end) {
                self.summary.add_missing(&missing);
                return Ok(());
            }
        }
    }

    /// Counts the rest of a list under a root as missing. Any other error of the list ends the run.
    fn end_early(&mut self, error: Error) -> Result<()> {
        let Some(length) = self.length.filter(|_| error.is_missing()) else {
            return Err(error);
        };
        self.summary.missing = length.saturating_sub(self.summary.found());
        self.summary.unlisted = Some(error);
        Ok(())
    }

    /// Whether each line of the list became a block, written or missing: the last guard before a file is
    /// called complete.
    fn check_count(&self) -> Result<()> {
        let (lines, blocks) = (lock(&self.shared.list).given(), self.summary.blocks());
        let is_written = |stream: &InOrder| stream.reorder_buffer.is_empty();
        if lines == blocks && self.stream.as_ref().is_none_or(is_written) {
            return Ok(());
        }
        let cause = format!("{blocks} blocks came of {lines} lines; this is a bug");
        Err(Error::local("get", self.name, cause))
    }

    /// Gives out tasks while there is room for their blocks.
    fn give_tasks(&mut self) {
        let most = self.workers.count * TASKS_EACH;
        while !self.ended && self.in_flight < most && self.has_room(most) {
            self.give(Task::Take(self.task_blocks));
        }
    }

    fn has_room(&self, tasks: usize) -> bool {
        let Some(stream) = &self.stream else {
            return self.failed.len() < MAX_FAILED;
        };
        let buffered = self.summary.found() - stream.next;
        let in_flight = self.failed.len() + self.in_flight * self.task_blocks;
        buffered + (in_flight as u64) < (tasks * self.task_blocks) as u64
    }

    fn give(&mut self, task: Task) {
        self.in_flight += 1;
        // If all workers are gone, the next report says so.
        let _ = self.workers.tasks.send(task);
    }

    fn take_report(&mut self) -> Result<()> {
        match self.workers.reports.recv_timeout(self.progress.tick()) {
            Ok(report) => self.take(report?)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::local("get", self.name, "its workers ended"));
            }
        }
        self.draw();
        Ok(())
    }

    fn take(&mut self, report: TaskReport) -> Result<()> {
        self.in_flight -= usize::from(report.is_last);
        self.ended |= report.list_ended || report.list_error.is_some();
        self.list_error = self.list_error.take().or(report.list_error);
        for span in report.spans {
            self.rounds.made_progress |= report.is_retry && span.origin == Origin::Fetched;
            self.put(span)?;
        }
        if report.transient {
            self.failed.extend(report.missing);
        } else {
            self.miss(&report.missing);
        }
        Ok(())
    }

    /// Brings blocks to their places, or to where they wait for their turn.
    fn put(&mut self, span: Span) -> Result<()> {
        self.check_length(span.end)?;
        self.check_no_root(&span)?;
        match span.origin {
            Origin::Fetched => self.summary.fetched += span.count(),
            _ => self.summary.local += span.count(),
        }
        if span.end.wanted.last {
            self.summary.size = span.end.offset();
        }
        let spare = &self.shared.sources.spare;
        if let Some(stream) = &mut self.stream {
            stream.put(span, spare)?;
        } else if let Some(place) = &self.shared.place {
            place.write(&span)?;
            spare.put(span.row);
        }
        Ok(())
    }

    /// # Errors
    /// When the last block of a span is not as long as the file's size says. Where that is not known: when it
    /// is short, though it has its place and is not the last of the file.
    fn check_length(&self, End { wanted, length }: End) -> Result<()> {
        let number = wanted.number + 1;
        match self.size {
            Some(size) if block::length(wanted.number, size) != length => {
                let cause =
                    format!("block {number} has {length} bytes, which does not fit its size");
                Err(Error::malformed("read root", self.name, cause))
            }
            None if self.stream.is_none() && !wanted.last && length != BLOCK_SIZE => {
                let line = format!("{}:{number}", self.name);
                let cause =
                    format!("a block of {length} bytes, which only the last of a file may have");
                Err(Error::malformed("read hashlist", line, cause))
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// When the only block of a list is a root block. The list may be a root that was kept in a file, and FILE
    /// would become the root block without a warning.
    fn check_no_root(&self, span: &Span) -> Result<()> {
        let may_be_one = self.stream.is_none() && self.length == Some(1) && self.size.is_none();
        if !may_be_one || Root::parse(span.row.bytes()).is_none() {
            return Ok(());
        }
        let cause = "it holds a root, which is given itself: \"$(cat FILE)\"";
        Err(Error::malformed("read hashlist", self.name, cause))
    }

    fn miss(&mut self, missing: &[BlockRef]) {
        for wanted in missing {
            match &mut self.stream {
                Some(stream) => {
                    // The blocks before it are in flight, and those behind it have no use.
                    self.ended = true;
                    stream.end_before(wanted);
                }
                None => self.summary.add_missing(wanted),
            }
        }
    }

    /// Asks again for blocks that failed, after a pause. After the last round they are missing.
    fn begin_round(&mut self) {
        let failed = mem::take(&mut self.failed);
        let Some(pause) = self.rounds.next() else {
            return self.miss(&failed);
        };
        let end = Instant::now() + pause;
        loop {
            self.draw();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(self.progress.tick()));
        }
        self.shared.sources.revive();
        for task in failed.chunks(self.task_blocks) {
            self.give(Task::Retry(task.to_vec()));
        }
    }

    fn draw(&mut self) {
        let summary = &self.summary;
        self.progress.draw(summary.blocks(), self.length, || {
            format!("{} at hand, {} fetched", summary.local, summary.fetched)
        });
    }
}
