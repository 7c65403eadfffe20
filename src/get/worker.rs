//! Workers: threads that find blocks, each one after the other. They read whatever is at hand, ask
//! servers, and keep what they fetched; they never write the output.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

use super::fetch::Fetcher;
use super::list::{List, Wanted};
use super::local::{Found, Local};
use super::output::Place;
use super::seed::Seed;
use super::servers::{Fetched, Servers};
use crate::block::Block;
use crate::error::{Error, Result};
use crate::mutex::lock;
use crate::store::{BlockDir, Writer};

/// Stack of a worker, in bytes: ureq's deepest path takes a third of it.
const STACK: usize = 256 * 1024;

/// What all workers share.
pub struct Shared {
    /// Read by whoever is at it next, so that nothing else waits for a list that comes slowly.
    pub list: Mutex<List>,
    pub servers: Servers,
    pub fetcher: Fetcher,
    /// The output, where it is one that can be looked into.
    pub place: Option<Place>,
    pub dir: Option<BlockDir>,
    /// Where what is fetched is kept. Taken away at the end, while some worker may still wait for a
    /// server or for the list: so the right to write is given up in order, and nothing waits.
    pub keep: RwLock<Option<Writer>>,
    pub seeds: Vec<Seed>,
    /// Nobody wants what is still being looked for.
    pub stop: AtomicBool,
}

/// What came of a block.
pub enum Outcome {
    /// It is in its place already, with this length.
    Right(usize),
    AtHand(Block<Vec<u8>>),
    Fetched(Block<Vec<u8>>),
    /// Nobody has it; `passing` if somebody may give it a little later.
    Nobody {
        passing: bool,
    },
}

/// What a worker is to do.
pub enum Task {
    /// Take so many lines off the list, and find their blocks.
    Take(usize),
    Again(Vec<Wanted>),
}

/// What came of a task, or of a part of it: blocks at hand are told of together, but one that was
/// fetched goes to the output as soon as it comes.
#[derive(Default)]
pub struct Done {
    pub found: Vec<(Wanted, Outcome)>,
    /// Whether this was the rest of it.
    pub finished: bool,
    /// Whether the blocks had failed before.
    pub again: bool,
    /// Whether the list was at its end, or goes on with a line that is not one.
    pub ended: bool,
    pub refused: Option<Error>,
}

/// The workers, as the one who gives them tasks sees them.
pub struct Workers {
    pub tasks: Sender<Task>,
    pub done: Receiver<Result<Done>>,
    count: usize,
}

impl Workers {
    /// Starts `jobs` of them, or as many as the machine gives threads for. They end with `tasks`.
    ///
    /// # Errors
    /// When it gives none.
    pub fn start(jobs: usize, shared: &Arc<Shared>) -> Result<Self> {
        let (tasks, waiting) = mpsc::channel();
        let (results, done) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let mut count = 0;
        for _ in 0..jobs {
            let (shared, waiting) = (Arc::clone(shared), Arc::clone(&waiting));
            let results = results.clone();
            let work = move || work(&shared, &waiting, &results);
            match thread::Builder::new().stack_size(STACK).spawn(work) {
                Ok(_) => count += 1,
                Err(e) if count == 0 => return Err(Error::io("start", "a thread", &e)),
                Err(_) => break,
            }
        }
        Ok(Workers { tasks, done, count })
    }

    pub fn count(&self) -> usize {
        self.count
    }
}

fn work(shared: &Shared, waiting: &Mutex<Receiver<Task>>, results: &Sender<Result<Done>>) {
    let mut worker = Worker::new(shared);
    loop {
        // A statement of its own, so that the lock is let go before the work.
        let task = lock(waiting).recv();
        let Ok(task) = task else { return };
        let tell = |part| results.send(Ok(part)).is_ok();
        // Without a word from this one, its task would be waited for without end.
        let run = catch_unwind(AssertUnwindSafe(|| worker.run(task, &tell)));
        let done = run.unwrap_or_else(|_| Err(Error::local("run", "a worker", "it panicked")));
        if results.send(done).is_err() {
            return;
        }
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    local: Local<'a>,
}

/// Finds one block, at once.
///
/// # Errors
/// What fails on this machine.
pub fn find(shared: &Shared, wanted: &Wanted) -> Result<Outcome> {
    Worker::new(shared).find(wanted)
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        let place = shared.place.as_ref();
        Worker {
            shared,
            local: Local::new(place, shared.dir.as_ref(), &shared.seeds),
        }
    }

    /// Does a task, and tells of parts of it by `tell`, which says whether anybody listens.
    fn run(&mut self, task: Task, tell: &dyn Fn(Done) -> bool) -> Result<Done> {
        let again = matches!(task, Task::Again(_));
        let part = || Done {
            again,
            ..Done::default()
        };
        let mut done = part();
        let wanted = match task {
            Task::Take(most) => {
                let taken = lock(&self.shared.list).take(most);
                let wanted = taken.unwrap_or_else(|error| {
                    done.refused = Some(error);
                    Vec::new()
                });
                done.ended = wanted.len() < most;
                wanted
            }
            Task::Again(wanted) => wanted,
        };
        for wanted in wanted {
            if self.shared.stop.load(Relaxed) {
                break;
            }
            let outcome = self.find(&wanted)?;
            let is_fetched = matches!(outcome, Outcome::Fetched(_));
            done.found.push((wanted, outcome));
            if is_fetched && !tell(mem::replace(&mut done, part())) {
                break;
            }
        }
        done.finished = true;
        Ok(done)
    }

    /// A block from where it is nearest.
    fn find(&mut self, wanted: &Wanted) -> Result<Outcome> {
        match self.local.find(wanted)? {
            Some(Found::Right(length)) => return Ok(Outcome::Right(length)),
            Some(Found::Block(block)) => return Ok(Outcome::AtHand(block)),
            None => {}
        }
        let fetcher = &self.shared.fetcher;
        let fetched = self
            .shared
            .servers
            .fetch(|url| fetcher.fetch(url, &wanted.hash))?;
        let block = match fetched {
            Fetched::Block(block) => block,
            Fetched::Nobody { passing } => return Ok(Outcome::Nobody { passing }),
        };
        self.keep(&block)?;
        Ok(Outcome::Fetched(block))
    }

    /// Not synced: a block that a power cut damages counts as absent, and is fetched again.
    fn keep(&self, block: &Block<Vec<u8>>) -> Result<()> {
        let keep = self
            .shared
            .keep
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = &*keep {
            let mut hand = writer.hand();
            if let Some(temporary) = hand.stage(block)? {
                hand.publish(temporary, &block.hash())?;
            }
        }
        Ok(())
    }
}
