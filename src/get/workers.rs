//! The workers: threads that take lines off the list and find their blocks. They never write the output.

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
use crate::mutex::lock;
use crate::spawn::{ASKING_STACK, spawn};

/// Blocks in flight at once, of all workers together: 6 MiB at most are held where they must go out
/// in order. Shared out, it is also the longest run that one request asks for.
const WINDOW: usize = 1536;

/// Lines of a batch, at most: a server refuses more.
const MAX_RUN: usize = 1024;

/// Tasks in flight for each worker: one that it is at, one that waits for it.
pub const TASKS_EACH: usize = 2;

/// Reports that wait for the writer, some 128 KiB each: where the disk is slower than the network,
/// workers wait.
const REPORTS: usize = 16;

/// Most blocks that one of so many workers has in flight in a task.
pub fn longest_run(jobs: usize) -> usize {
    (WINDOW / (jobs * TASKS_EACH)).clamp(1, MAX_RUN)
}

/// What all workers share.
pub struct Shared {
    pub sources: Arc<Sources>,
    /// Each worker reads its own lines, so that nothing else waits for a list that comes slowly.
    pub list: Mutex<List>,
    /// The output, where it is one that can be looked into.
    pub place: Option<Place>,
}

/// What a worker is to do.
pub enum Task {
    /// Take lines off the list, and find their blocks: so many, or more where local blocks are in their
    /// places already, or each have one.
    Take(usize),
    /// Find these, which failed before.
    Retry(Vec<BlockRef>),
}

/// The workers, as the one who gives them tasks sees them.
pub struct Workers {
    pub tasks: Sender<Task>,
    pub done: Receiver<Result<TaskReport>>,
    count: usize,
}

impl Workers {
    /// Starts `jobs` of them, or as many as the machine gives threads for. They end with `tasks`.
    ///
    /// # Errors
    /// When it gives none.
    pub fn start(jobs: usize, shared: &Arc<Shared>) -> Result<Self> {
        let (tasks, waiting) = mpsc::channel();
        let (reports, done) = mpsc::sync_channel(REPORTS);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut count = 0;
        for _ in 0..jobs {
            let (shared, waiting) = (Arc::clone(shared), Arc::clone(&waiting));
            let reports = reports.clone();
            let work = move || work(&shared, &waiting, &reports);
            match spawn(ASKING_STACK, Box::new(work)) {
                Ok(()) => count += 1,
                Err(e) if count == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(Workers { tasks, done, count })
    }

    pub fn count(&self) -> usize {
        self.count
    }
}

fn work(
    shared: &Shared,
    waiting: &Mutex<Receiver<Task>>,
    reports: &SyncSender<Result<TaskReport>>,
) {
    let mut finder = Finder::of_file(&shared.sources, shared.place.as_ref(), reports);
    loop {
        // A statement of its own, so that the lock is let go before the work.
        let task = lock(waiting).recv();
        let Ok(task) = task else { return };
        // Without a report of this worker, its task would be waited for without end.
        let done = catch_unwind(AssertUnwindSafe(|| run(task, shared, &mut finder)));
        let done = done.unwrap_or_else(|_| Err(Error::local("run", "a worker", "it panicked")));
        if reports.send(done).is_err() {
            return;
        }
    }
}

fn run(task: Task, shared: &Shared, finder: &mut Finder) -> Result<TaskReport> {
    finder.set_retry(matches!(task, Task::Retry(_)));
    match task {
        Task::Take(most) => take(most, shared, finder),
        Task::Retry(wanted) => finder.find(wanted),
    }
}

/// Takes lines until there are so many without a local block as make a run. Where blocks must go out in
/// order, local ones are held, so that there are at most `most` lines.
fn take(most: usize, shared: &Shared, finder: &mut Finder) -> Result<TaskReport> {
    let run = finder.begin_run();
    let (length, is_stream) = (run.length.min(most), shared.place.is_none());
    let (mut absent, mut lines) = (Vec::new(), 0);
    let (mut list_ended, mut refused) = (false, None);
    while absent.len() < length && !(is_stream && lines >= most) && !finder.is_stopped() {
        let mut due = length - absent.len();
        if is_stream {
            due = due.min(most - lines);
        }
        let mut wanted = Vec::with_capacity(due);
        match lock(&shared.list).take(due, &mut wanted) {
            Ok(ended) => list_ended = ended,
            Err(error) => refused = Some(error),
        }
        let count = wanted.len();
        lines += count;
        absent.append(&mut finder.find_local(wanted)?);
        if count < due {
            break;
        }
        if !is_stream {
            finder.send_on();
        }
    }
    Ok(TaskReport {
        list_ended,
        refused,
        ..finder.fetch(absent, run)?
    })
}
