//! From the list to the output: gives the workers tasks, writes the blocks that they find, and begins
//! another round for what failed. This is one thread, the only one that writes. A bounded number of
//! blocks is in flight, so memory stays flat whatever the size of the file.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Instant;

use super::block_ref::BlockRef;
use super::output::Stream;
use super::output::sink::{End, Origin, Part, TaskReport};
use super::rounds::Rounds;
use super::workers::{Shared, TASKS_EACH, Task, Workers, longest_run};
use crate::block::{self, BLOCK_SIZE};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::mutex::lock;
use crate::progress::Progress;
use crate::root::Root;

/// Where others go through the list at the same time, all workers together have one in so many of its
/// lines in hand, or a few each: what they have asked the others for, in vain, they fetch from afar
/// though somebody may have got it meanwhile. Eight boxes then fetch 1.1 to 1.3 copies, and 2.9 without.
const SHARES: u64 = 128;
const LEAST_SHARE: usize = 4;

/// Blocks that failed for a passing reason and wait for the next round, at most.
const MAX_FAILED: usize = 1024;

/// Missing blocks that are remembered to be named.
const NAMED: usize = 3;

/// What became of the blocks.
#[derive(Default)]
pub struct Summary {
    pub at_hand: u64,
    pub fetched: u64,
    pub missing: u64,
    /// The first of the missing.
    pub named: Vec<(u64, Hash)>,
    /// Of the file in bytes, once its last block is known.
    pub size: u64,
    pub is_stream: bool,
    /// What ended a list under a root, whose further blocks nobody can name.
    pub unlisted: Option<Error>,
}

impl Summary {
    pub fn blocks(&self) -> u64 {
        self.at_hand + self.fetched + self.missing
    }
}

/// What comes next in a stream.
enum Next {
    Part(Part),
    /// A block that no source has: the stream ends before it.
    Missing(Hash),
}

pub struct Scheduler<'a> {
    shared: &'a Shared,
    /// The list's name, and its lines where they are known.
    name: &'a str,
    length: Option<u64>,
    /// The file's in bytes, where a root tells it.
    size: Option<u64>,
    /// None where blocks go to their places instead.
    stream: Option<Stream>,
    workers: Workers,
    progress: Progress,
    rounds: Rounds,
    /// Blocks in a task.
    task: usize,
    /// Tasks given out and not yet come back.
    in_flight: usize,
    /// Whether the list came to its end, and whether that was not its right one: what came before
    /// is written first.
    ended: bool,
    refused: Option<Error>,
    /// Of a stream: the number of the block that is next, and what came before its turn, the hash
    /// of a block where nobody has it. By the number of the first block, and how many they are.
    next: u64,
    reorder_buffer: BTreeMap<u64, Next>,
    buffered: u64,
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
        let is_stream = stream.is_some();
        let list = lock(&shared.list);
        let (length, size) = (list.length(), list.size());
        // Short lists are shared out evenly.
        let each = length.map_or(usize::MAX, |length| {
            usize::try_from(length / (workers.count() * TASKS_EACH) as u64).unwrap_or(usize::MAX)
        });
        let mut task = each.clamp(1, longest_run(workers.count()));
        if let (true, Some(lines)) = (list.is_shuffled(), length) {
            let share = lines / (SHARES * workers.count() as u64);
            task = task.min(usize::try_from(share).unwrap_or(task).max(LEAST_SHARE));
        }
        drop(list);
        Scheduler {
            shared,
            name,
            length,
            size,
            stream,
            workers,
            progress,
            rounds: Rounds::new(retry),
            task,
            in_flight: 0,
            ended: false,
            refused: None,
            next: 0,
            reorder_buffer: BTreeMap::new(),
            buffered: 0,
            failed: Vec::new(),
            summary: Summary {
                is_stream,
                ..Summary::default()
            },
        }
    }

    /// Runs to the end of the list, or, with a stream, to the first block that nobody has.
    ///
    /// # Errors
    /// What fails on this machine, and a list that turns out not to be one.
    pub fn run(mut self) -> Result<Summary> {
        let done = self.run_rounds();
        // What is under way still is left to itself: it may take as long as a server takes.
        self.shared.sources.stop.store(true, Relaxed);
        self.shared.sources.keep.end();
        done.map(|()| self.summary)
    }

    fn run_rounds(&mut self) -> Result<()> {
        loop {
            self.give_tasks();
            if self.in_flight > 0 {
                self.take_results()?;
            } else if !self.failed.is_empty() {
                self.begin_round()?;
            } else if let Some(error) = self.refused.take() {
                return self.end_early(error);
            } else {
                return self.check_count();
            }
            if self.summary.is_stream && self.summary.missing > 0 {
                return Ok(());
            }
        }
    }

    /// The rest of the list could not be had, or is none.
    fn end_early(&mut self, error: Error) -> Result<()> {
        let Some(length) = self.length.filter(|_| error.is_missing()) else {
            return Err(error);
        };
        let summary = &mut self.summary;
        summary.missing = length.saturating_sub(summary.at_hand + summary.fetched);
        summary.unlisted = Some(error);
        Ok(())
    }

    /// Whether each line of the list has become of something: no file is complete without that.
    fn check_count(&self) -> Result<()> {
        let (lines, blocks) = (lock(&self.shared.list).given(), self.summary.blocks());
        if lines == blocks && self.reorder_buffer.is_empty() {
            return Ok(());
        }
        let cause =
            format_args!("{blocks} blocks came of {lines} lines; this is a bug").to_string();
        Err(Error::local("get", self.name, cause))
    }

    /// Gives out tasks as long as there is room for what comes of them.
    fn give_tasks(&mut self) {
        let most = self.workers.count() * TASKS_EACH;
        while !self.ended && self.in_flight < most && self.has_room(most) {
            self.give(Task::Take(self.task));
        }
    }

    fn has_room(&self, tasks: usize) -> bool {
        if self.summary.is_stream {
            let in_flight = self.failed.len() + self.in_flight * self.task;
            self.buffered + (in_flight as u64) < (tasks * self.task) as u64
        } else {
            self.failed.len() < MAX_FAILED
        }
    }

    fn give(&mut self, task: Task) {
        self.in_flight += 1;
        // Were all workers gone, taking results would say so.
        let _ = self.workers.tasks.send(task);
    }

    fn take_results(&mut self) -> Result<()> {
        let done = match self.workers.done.recv_timeout(self.progress.tick()) {
            Ok(done) => done?,
            Err(RecvTimeoutError::Timeout) => {
                self.draw();
                return Ok(());
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::local("get", self.name, "its workers ended"));
            }
        };
        self.take(done)?;
        self.draw();
        Ok(())
    }

    fn take(&mut self, done: TaskReport) -> Result<()> {
        self.in_flight -= usize::from(done.finished);
        self.ended |= done.list_ended || done.refused.is_some();
        self.refused = self.refused.take().or(done.refused);
        for part in done.parts {
            self.rounds.made_progress |= done.is_retry && part.origin == Origin::Fetched;
            self.put(part)?;
        }
        if done.transient {
            self.failed.extend(done.missing);
            return Ok(());
        }
        done.missing.iter().try_for_each(|wanted| self.miss(wanted))
    }

    /// Brings blocks to their places, or to where they wait for their turn.
    fn put(&mut self, part: Part) -> Result<()> {
        let count = part.count();
        self.check_length(part.end)?;
        self.check_no_root(&part)?;
        match part.origin {
            Origin::Fetched => self.summary.fetched += count,
            _ => self.summary.at_hand += count,
        }
        let Some(place) = &self.shared.place else {
            self.buffered += count;
            self.reorder_buffer.insert(part.first, Next::Part(part));
            return self.write_ready();
        };
        if part.end.wanted.last {
            self.summary.size = part.end.offset();
        }
        match part.origin {
            Origin::InPlace => Ok(()),
            Origin::Zeros => place.write_zeros(part.first, part.end),
            Origin::Local | Origin::Derived | Origin::Fetched => {
                let written = place.write(part.first, part.end, part.row.bytes());
                self.shared.sources.spare.put(part.row);
                written
            }
        }
    }

    /// Whether the last of some blocks is as long as the file's size says, or, where only the list is known
    /// and blocks have their places, full unless it is the last of all.
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

    /// A list of one line may be a root that was kept in a file, and FILE would become its root block,
    /// unseen by anybody.
    fn check_no_root(&self, part: &Part) -> Result<()> {
        let may_be_one = self.stream.is_none() && self.length == Some(1) && self.size.is_none();
        if !may_be_one || Root::parse(part.row.bytes()).is_none() {
            return Ok(());
        }
        let cause = "it holds a root, which is given itself: \"$(cat FILE)\"";
        Err(Error::malformed("read hashlist", self.name, cause))
    }

    fn miss(&mut self, wanted: &BlockRef) -> Result<()> {
        if self.stream.is_some() {
            // Nothing after it will be written, and whatever is before it is under way.
            self.ended = true;
            self.reorder_buffer
                .insert(wanted.number, Next::Missing(wanted.hash));
            return self.write_ready();
        }
        self.count_missing(wanted.number, wanted.hash);
        Ok(())
    }

    fn count_missing(&mut self, number: u64, hash: Hash) {
        self.summary.missing += 1;
        let named = &mut self.summary.named;
        let place = named.partition_point(|&(other, _)| other < number);
        named.insert(place, (number, hash));
        named.truncate(NAMED);
    }

    /// Writes to a stream what has its turn; stops for good at a block that nobody has.
    fn write_ready(&mut self) -> Result<()> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        while let Some(next) = self.reorder_buffer.remove(&self.next) {
            let part = match next {
                Next::Part(part) => part,
                Next::Missing(hash) => {
                    self.count_missing(self.next, hash);
                    break;
                }
            };
            let count = part.count();
            match part.origin {
                Origin::Local | Origin::Derived | Origin::Fetched => {
                    stream.write(part.row.bytes())?;
                    self.shared.sources.spare.put(part.row);
                }
                Origin::Zeros => (0..count).try_for_each(|_| stream.write(&[0; BLOCK_SIZE]))?,
                // A stream has no places.
                Origin::InPlace => {}
            }
            self.next += count;
            self.buffered -= count;
        }
        Ok(())
    }

    /// Asks again for what failed, after a pause, or has it missing where that was in vain often
    /// enough.
    fn begin_round(&mut self) -> Result<()> {
        let failed = mem::take(&mut self.failed);
        let Some(pause) = self.rounds.next() else {
            return failed.iter().try_for_each(|wanted| self.miss(wanted));
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
        for task in failed.chunks(self.task) {
            self.give(Task::Retry(task.to_vec()));
        }
        Ok(())
    }

    fn draw(&mut self) {
        let summary = &self.summary;
        self.progress.draw(summary.blocks(), self.length, || {
            format!("{} at hand, {} fetched", summary.at_hand, summary.fetched)
        });
    }
}
