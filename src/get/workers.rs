//! The workers: threads that take lines off the list and find their blocks.
//!
//! This file owns the threads and the length of their tasks. They never write the output.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};

use super::block_ref::BlockRef;
use super::finder::Finder;
use super::list::List;
use super::output::Place;
use super::output::sink::TaskReport;
use super::sources::Sources;
use crate::error::{Error, Result};
use crate::frames::MAX_LINES;
use crate::mutex::lock;
use crate::spawn::{ASKING_STACK, spawn};

/// Blocks in flight at once, of all workers together: where they must go out in order, they take at most
/// 6 MiB.
const WINDOW: usize = 1536;

/// Tasks in flight for each worker: the current one, and the next.
pub const TASKS_EACH: usize = 2;

/// Reports that wait for the writer, about 128 KiB each. Behind them the workers wait, where the disk is
/// slower than the network.
const REPORTS: usize = 16;

/// Most blocks of a run, of a batch, and of a task as [`Task::Take`] counts them, for each of `jobs` workers. A
/// server refuses a longer batch.
pub fn longest_run(jobs: usize) -> usize {
    (WINDOW / (jobs * TASKS_EACH)).clamp(1, MAX_LINES)
}

/// The values that all workers share.
pub struct Shared {
    pub sources: Arc<Sources>,
    /// Each worker takes its own lines, so that only workers wait for a slow list.
    pub list: Mutex<List>,
    /// The output, where each block has its place. None for a stream.
    pub place: Option<Place>,
}

pub enum Task {
    /// Take lines off the list, and find their blocks: this number of lines for a stream, and of absent blocks
    /// where each block has its place.
    Take(usize),
    /// Find these blocks, which failed before.
    Retry(Vec<BlockRef>),
}

/// The workers, as the scheduler sees them.
pub struct Workers {
    pub tasks: Sender<Task>,
    pub reports: Receiver<Result<TaskReport>>,
    pub count: usize,
}

impl Workers {
    /// Starts `jobs` workers, or as many as the machine has threads for. They end with `tasks`.
    ///
    /// # Errors
    /// When the machine has no thread.
    pub fn start(jobs: usize, shared: &Arc<Shared>) -> Result<Self> {
        let (tasks, waiting) = mpsc::channel();
        let (sender, reports) = mpsc::sync_channel(REPORTS);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut count = 0;
        for _ in 0..jobs {
            let (shared, waiting) = (Arc::clone(shared), Arc::clone(&waiting));
            let sender = sender.clone();
            let work = move || work(&shared, &waiting, &sender);
            match spawn(ASKING_STACK, Box::new(work)) {
                Ok(()) => count += 1,
                Err(e) if count == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(Workers {
            tasks,
            reports,
            count,
        })
    }
}

fn work(
    shared: &Shared,
    waiting: &Mutex<Receiver<Task>>,
    reports: &SyncSender<Result<TaskReport>>,
) {
    let mut finder = Finder::of_file(&shared.sources, shared.place.as_ref(), reports);
    loop {
        // A statement of its own, so that the lock ends before the work.
        let task = lock(waiting).recv();
        let Ok(task) = task else { return };
        // The scheduler waits for a report of each task, also after a panic.
        let report = catch_unwind(AssertUnwindSafe(|| match task {
            Task::Take(most) => take(most, shared, &mut finder),
            Task::Retry(wanted) => finder.retry(&wanted),
        }));
        let report = report.unwrap_or_else(|_| Err(Error::local("run", "a worker", "it panicked")));
        if reports.send(report).is_err() {
            return;
        }
    }
}

/// Takes lines until their absent blocks make a run, of at most `most` blocks. A stream also holds local blocks
/// back until their turn, so for a stream all lines count.
fn take(most: usize, shared: &Shared, finder: &mut Finder) -> Result<TaskReport> {
    let run = shared.sources.begin_run();
    let (length, is_stream) = (run.length.min(most), shared.place.is_none());
    let limit = if is_stream { most } else { usize::MAX };
    let (mut wanted, mut absent) = (Vec::with_capacity(length), Vec::with_capacity(length));
    let mut lines = 0;
    let (mut list_ended, mut list_error) = (false, None);
    while absent.len() < length && lines < limit && !finder.is_stopped() {
        let due = (length - absent.len()).min(limit - lines);
        wanted.clear();
        match lock(&shared.list).take(due, &mut wanted) {
            Ok(ended) => list_ended = ended,
            Err(error) => list_error = Some(error),
        }
        lines += wanted.len();
        finder.find_local(&wanted, &mut absent)?;
        if wanted.len() < due {
            break;
        }
        if !is_stream {
            finder.flush_if_due();
        }
    }
    Ok(TaskReport {
        list_ended,
        list_error,
        ..finder.fetch(absent, run)?
    })
}
