//! Blocks on their way to the output. Those that follow each other in the file go there together:
//! one message to the writer, and one write, for many.

use std::mem;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::block::{BLOCK_SIZE, Block, Row, Slot};
use crate::error::{Error, Result};
use crate::get::block_ref::BlockRef;
use crate::mutex::lock;
use crate::store::Writer;

/// Blocks in a part that has bytes, at most: 128 KiB make the cost of a system call small.
const ROW: usize = 32;

/// Buffers that are kept to be used again: 2 MiB.
const MAX_SPARE: usize = 16;

/// What is there goes on its way after this, though its part may still grow: what comes slowly is
/// written as it comes.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Blocks that follow each other in the file, of one origin.
pub struct Part {
    /// Number of the first.
    pub first: u64,
    pub end: End,
    pub origin: Origin,
    /// Their bytes, where [`Origin::has_bytes`].
    pub row: Row,
}

/// The last block of a part. Only this may be shorter than [`BLOCK_SIZE`].
#[derive(Clone, Copy)]
pub struct End {
    pub wanted: BlockRef,
    pub length: usize,
}

impl End {
    /// Where the block ends, in bytes.
    pub fn offset(&self) -> u64 {
        self.wanted.offset() + self.length as u64
    }
}

/// How a block was found.
#[derive(Clone, Copy, PartialEq)]
pub enum Origin {
    /// In its place already.
    InPlace,
    /// Nothing but zeros.
    Zeros,
    /// On this machine.
    Local,
    /// Made from a seed: a block of its own list.
    Derived,
    Fetched,
}

impl Origin {
    pub fn has_bytes(self) -> bool {
        !matches!(self, Origin::InPlace | Origin::Zeros)
    }

    /// Whether the block directory does not have it yet, and a box that passes the file on needs it.
    fn is_kept(self) -> bool {
        matches!(self, Origin::Derived | Origin::Fetched)
    }
}

impl Part {
    pub fn count(&self) -> u64 {
        self.end.wanted.number + 1 - self.first
    }
}

/// Buffers to be used again, shared by the workers and the writer. Memory that goes back to the
/// system costs a page fault a block when it is had again, a tenth of the time of a quick get.
pub struct Spare {
    /// Blocks in each.
    room: usize,
    rows: Mutex<Vec<Row>>,
}

impl Spare {
    /// Each worker has one, so where many of them share the window none is longer than its run.
    pub fn new(longest_run: usize) -> Self {
        Spare {
            room: longest_run.min(ROW),
            rows: Mutex::default(),
        }
    }

    fn take(&self) -> Row {
        lock(&self.rows)
            .pop()
            .unwrap_or_else(|| Row::new(self.room))
    }

    pub fn put(&self, mut row: Row) {
        let mut rows = lock(&self.rows);
        if row.room() == self.room && rows.len() < MAX_SPARE {
            row.clear();
            rows.push(row);
        }
    }
}

/// What came of a task, or of a part of it: what was fetched goes to the output as it comes.
#[derive(Default)]
pub struct TaskReport {
    pub parts: Vec<Part>,
    /// Blocks that no source gave; `transient` if a server may give them a little later.
    pub missing: Vec<BlockRef>,
    pub transient: bool,
    /// Whether this was the rest of it.
    pub finished: bool,
    /// Whether the blocks had failed before.
    pub is_retry: bool,
    pub list_ended: bool,
    /// What ended the list before its end, if anything did.
    pub refused: Option<Error>,
}

/// Where one worker puts the blocks that it finds. Makes parts of them.
pub struct Sink<'a> {
    keep: &'a Keep,
    spare: &'a Spare,
    /// Gets parts of a task before all of it is done. None where the end of the task is enough.
    results: Option<&'a SyncSender<Result<TaskReport>>>,
    pub is_retry: bool,
    zeros_are_kept: bool,
    done: Vec<Part>,
    /// The part that may grow; its row is empty until it is closed.
    open: Option<Part>,
    /// The bytes of the open part.
    row: Row,
    /// What the slot was lent for.
    pending: Option<(BlockRef, Origin)>,
    /// When it last sent on all that was there.
    sent: Instant,
}

impl<'a> Sink<'a> {
    pub fn new(
        keep: &'a Keep,
        spare: &'a Spare,
        results: Option<&'a SyncSender<Result<TaskReport>>>,
    ) -> Self {
        Sink {
            keep,
            spare,
            results,
            is_retry: false,
            zeros_are_kept: false,
            done: Vec::new(),
            open: None,
            row: Row::default(),
            pending: None,
            sent: Instant::now(),
        }
    }

    /// Room for a block of this origin: it is read into the slot, verified there, and then committed.
    pub fn slot(&mut self, wanted: &BlockRef, origin: Origin) -> Slot<'_> {
        self.begin(wanted, origin);
        if self.row.is_full() {
            self.row = self.spare.take();
        }
        self.pending = Some((*wanted, origin));
        match self.row.slot() {
            Some(slot) => slot,
            None => unreachable!("a row has room for a block at least"),
        }
    }

    /// Takes in the block that the slot holds. False where it holds none.
    ///
    /// # Errors
    /// When the block directory refuses to keep it.
    pub fn commit(&mut self) -> Result<bool> {
        let (Some((wanted, origin)), Some(block)) = (self.pending.take(), self.row.commit()) else {
            return Ok(false);
        };
        extend(&mut self.open, &wanted, origin, block.bytes().len());
        if origin.is_kept() {
            self.keep.keep(&block)?;
        }
        if origin == Origin::Fetched {
            self.flush_if_due();
        }
        Ok(true)
    }

    /// Takes in a block that is in its place already.
    pub fn note_in_place(&mut self, wanted: &BlockRef, length: usize) {
        self.begin(wanted, Origin::InPlace);
        extend(&mut self.open, wanted, Origin::InPlace, length);
    }

    /// Takes in a block of zeros. No server is asked for zeros, but a box that reads the block directory
    /// without psync needs them: they are kept once.
    ///
    /// # Errors
    /// As [`Sink::commit`].
    pub fn note_zeros(&mut self, wanted: &BlockRef) -> Result<()> {
        if !mem::replace(&mut self.zeros_are_kept, true) {
            self.keep.keep(&Block::of(&[0; BLOCK_SIZE]))?;
        }
        self.begin(wanted, Origin::Zeros);
        extend(&mut self.open, wanted, Origin::Zeros, BLOCK_SIZE);
        Ok(())
    }

    /// Ends the open part unless `wanted` may be its next block.
    fn begin(&mut self, wanted: &BlockRef, origin: Origin) {
        let goes_on = |open: &Part| {
            open.origin == origin
                && open.end.wanted.number + 1 == wanted.number
                && open.end.length == BLOCK_SIZE
        };
        if !self.open.as_ref().is_some_and(goes_on) || self.is_full() {
            self.close();
        }
    }

    /// Whether the open part has no room for another block.
    fn is_full(&self) -> bool {
        let has_bytes = |open: &Part| open.origin.has_bytes();
        self.open.as_ref().is_some_and(has_bytes) && self.row.is_full()
    }

    fn close(&mut self) {
        if let Some(mut part) = self.open.take() {
            if part.origin.has_bytes() {
                part.row = self.row.take();
            }
            self.done.push(part);
        }
    }

    /// Takes all parts out.
    pub fn take(&mut self) -> Vec<Part> {
        self.close();
        self.sent = Instant::now();
        mem::take(&mut self.done)
    }

    /// Sends on what there is, if a part is complete or has waited long enough.
    pub fn flush_if_due(&mut self) {
        let is_old = || self.open.is_some() && self.sent.elapsed() >= MAX_PAUSE;
        if !self.done.is_empty() || self.is_full() || is_old() {
            self.flush();
        }
    }

    /// Sends on what there is. A receiver that has gone is seen at the end of the task.
    pub fn flush(&mut self) {
        let Some(results) = self.results else { return };
        let (parts, is_retry) = (self.take(), self.is_retry);
        if !parts.is_empty() {
            let _ = results.send(Ok(TaskReport {
                parts,
                is_retry,
                ..TaskReport::default()
            }));
        }
    }
}

fn extend(open: &mut Option<Part>, wanted: &BlockRef, origin: Origin, length: usize) {
    let end = End {
        wanted: *wanted,
        length,
    };
    let part = open.get_or_insert_with(|| Part {
        first: wanted.number,
        end,
        origin,
        row: Row::default(),
    });
    part.end = end;
}

/// The block directory in which fetched blocks are kept, if there is one. It is taken away at the end,
/// while some worker may still wait for a server or for the list: so the right to write is given up in
/// order, and nothing waits.
pub struct Keep(RwLock<Option<Writer>>);

impl Keep {
    pub fn new(writer: Option<Writer>) -> Self {
        Keep(RwLock::new(writer))
    }

    /// Keeps a block. Not synced: one that a power cut damages counts as absent, and is fetched again.
    ///
    /// # Errors
    /// When the block directory refuses.
    pub fn keep(&self, block: &Block) -> Result<()> {
        let keep = self.0.read();
        if let Some(writer) = &*keep.unwrap_or_else(PoisonError::into_inner) {
            let mut hand = writer.block_writer();
            if let Some(temporary) = hand.stage(block)? {
                hand.publish(temporary, &block.hash())?;
            }
        }
        Ok(())
    }

    /// Keeps nothing from now on.
    pub fn end(&self) {
        let keep = self.0.write();
        drop(keep.unwrap_or_else(PoisonError::into_inner).take());
    }
}
