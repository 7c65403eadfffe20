//! Verified blocks on their way to the output. Those that follow each other in the file form a span: one
//! message to the writer, and one write, for many.
//!
//! This file owns the spans, the buffers of their bytes, the reports that bring them to the scheduler, and the
//! copies that `--keep` makes. It writes no output.

use std::mem;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::block::{BLOCK_SIZE, Block, Row, Slot};
use crate::error::{Error, Result};
use crate::get::block_ref::BlockRef;
use crate::mutex::lock;
use crate::store::Writer;

/// Blocks in a span that has bytes, at most: 128 KiB make the cost of a system call small.
const ROW: usize = 32;

/// Spare buffers, at most: 2 MiB.
const MAX_SPARE: usize = 16;

/// A span that may still grow is sent after this pause: slow blocks reach the output as they come.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Blocks that follow each other in the file, of one origin.
pub struct Span {
    /// Number of the first.
    pub first: u64,
    pub end: End,
    pub origin: Origin,
    /// Their bytes, where [`Origin::has_bytes`].
    pub row: Row,
}

/// The last block of a span. Only this may be shorter than [`BLOCK_SIZE`].
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

/// Where a block was found.
#[derive(Clone, Copy, PartialEq)]
pub enum Origin {
    /// In its place already.
    InPlace,
    /// Nowhere: all its bytes are zero.
    Zeros,
    /// Elsewhere on this machine.
    Local,
    /// In a seed's own list, which is made from the seed.
    Derived,
    Fetched,
}

impl Origin {
    pub fn has_bytes(self) -> bool {
        !matches!(self, Origin::InPlace | Origin::Zeros)
    }

    /// Whether the block directory still lacks it: a box that passes the file on needs it there.
    fn is_kept(self) -> bool {
        matches!(self, Origin::Derived | Origin::Fetched)
    }
}

impl Span {
    pub fn count(&self) -> u64 {
        self.end.wanted.number + 1 - self.first
    }
}

/// Spare buffers, shared by the workers and the writer. Memory that goes back to the system costs a page
/// fault a block when it returns, a tenth of the time of a quick get.
pub struct Spare {
    /// Blocks in each.
    room: usize,
    rows: Mutex<Vec<Row>>,
}

impl Spare {
    /// Each worker has a row, so rows are no longer than a run where many workers share the window.
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

    /// Takes a row back, if it is a whole buffer.
    pub fn put(&self, mut row: Row) {
        if row.room() != self.room {
            return;
        }
        let mut rows = lock(&self.rows);
        if rows.len() < MAX_SPARE {
            row.clear();
            rows.push(row);
        }
    }
}

/// What a task brought so far: fetched blocks go to the output as they come. A list's error, the end of the
/// list and missing blocks come with the last report of a task.
#[derive(Default)]
pub struct TaskReport {
    pub spans: Vec<Span>,
    /// Blocks that no source gave.
    pub missing: Vec<BlockRef>,
    /// Whether a server may give one of these later. Then all of them are tried again.
    pub transient: bool,
    /// Whether this is the last report of the task.
    pub is_last: bool,
    /// Whether the blocks had failed before.
    pub is_retry: bool,
    pub list_ended: bool,
    /// What ended the list early.
    pub list_error: Option<Error>,
}

/// Where one worker puts the blocks that it finds. A block with bytes comes in four steps:
///
/// 1. [`Sink::slot`] lends the room behind the last block of the open span. It closes that span first where
///    the new block cannot follow it.
/// 2. A source reads into the slot, and calls [`Slot::accept`], which verifies the bytes where they lie.
/// 3. The slot goes out of scope. Whether it was accepted stays behind in the row.
/// 4. [`Sink::commit`] takes in what the last slot accepted, under the number for which it was lent.
///
/// A slot that is not accepted leaves no bytes behind; at most it has closed a span. A block without bytes needs
/// no slot: [`Sink::note_in_place`] and [`Sink::note_zeros`] take it in at once.
pub struct Sink<'a> {
    keep: &'a Keep,
    spare: &'a Spare,
    /// Takes the spans of a task as they come. None if the last report has them all.
    reports: Option<&'a SyncSender<Result<TaskReport>>>,
    pub is_retry: bool,
    zeros_are_kept: bool,
    /// Closed spans.
    done: Vec<Span>,
    /// The span that may grow. Its own row stays empty until it is closed.
    open: Option<Span>,
    /// The bytes of the open span, with room for another block.
    row: Row,
    /// The block for which the last slot was lent, until the commit.
    pending: Option<(BlockRef, Origin)>,
    /// When the sink was last empty.
    sent: Instant,
}

impl<'a> Sink<'a> {
    pub fn new(
        keep: &'a Keep,
        spare: &'a Spare,
        reports: Option<&'a SyncSender<Result<TaskReport>>>,
    ) -> Self {
        Sink {
            keep,
            spare,
            reports,
            is_retry: false,
            zeros_are_kept: false,
            done: Vec::new(),
            open: None,
            row: Row::default(),
            pending: None,
            sent: Instant::now(),
        }
    }

    /// Lends room for a block of this origin.
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

    /// Takes in the block that the last slot accepted. False where it accepted none.
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
        if self.row.is_full() {
            self.close();
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

    /// Takes in a block of zeros. The first one goes to the block directory: psync asks no server for
    /// zeros, but a client that reads the directory without psync needs them there.
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

    /// Closes the open span unless `wanted` may be its next block.
    fn begin(&mut self, wanted: &BlockRef, origin: Origin) {
        let goes_on = |open: &Span| {
            open.origin == origin
                && open.end.wanted.number + 1 == wanted.number
                && open.end.length == BLOCK_SIZE
        };
        if !self.open.as_ref().is_some_and(goes_on) {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(mut span) = self.open.take() {
            if span.origin.has_bytes() {
                span.row = self.row.take();
            }
            self.done.push(span);
        }
    }

    /// Empties the sink: returns all spans.
    pub fn take(&mut self) -> Vec<Span> {
        self.close();
        self.sent = Instant::now();
        mem::take(&mut self.done)
    }

    /// Sends all spans, if one is complete or has waited long enough.
    pub fn flush_if_due(&mut self) {
        let is_old = || self.open.is_some() && self.sent.elapsed() >= MAX_PAUSE;
        if !self.done.is_empty() || is_old() {
            self.flush();
        }
    }

    /// Sends all spans. The last report of the task shows whether the receiver is gone.
    pub fn flush(&mut self) {
        let Some(reports) = self.reports else { return };
        let (spans, is_retry) = (self.take(), self.is_retry);
        if !spans.is_empty() {
            let _ = reports.send(Ok(TaskReport {
                spans,
                is_retry,
                ..TaskReport::default()
            }));
        }
    }
}

fn extend(open: &mut Option<Span>, wanted: &BlockRef, origin: Origin, length: usize) {
    let end = End {
        wanted: *wanted,
        length,
    };
    let span = open.get_or_insert_with(|| Span {
        first: wanted.number,
        end,
        origin,
        row: Row::default(),
    });
    span.end = end;
}

/// The writer of the block directory, with `--keep`. The end of the run takes it away, while a worker may
/// still wait for a server or for the list: so it gives its claim up in order, and the end waits for no
/// worker.
pub struct Keep(RwLock<Option<Writer>>);

impl Keep {
    pub fn new(writer: Option<Writer>) -> Self {
        Keep(RwLock::new(writer))
    }

    /// Keeps a block, without a sync: a block that a power cut damages counts as absent, and the next run
    /// fetches it again.
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
