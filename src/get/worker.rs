//! Workers: threads that find blocks. They read whatever is at hand, ask servers for the rest, a run
//! of blocks at once, and keep what they fetched; they never write the output.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::ask;
use super::fetch::Fetcher;
use super::list::{List, Wanted};
use super::local::Local;
use super::mirror::Mirror;
use super::output::Place;
use super::parts::{Kind, Part, Parts, Spare};
use super::seed::Seed;
use super::servers::{Servers, Turn, Way};
use crate::block::{Block, READ_SIZE};
use crate::error::{Error, Result};
use crate::mutex::lock;
use crate::spawn::spawn;
use crate::store::{BlockDir, Writer};

/// Stack of a thread that asks servers, in bytes: ureq's deepest path takes a third of it.
pub const STACK: usize = 256 * 1024;

/// What all workers share that put a file together.
pub struct Shared {
    pub sources: Arc<Sources>,
    /// Read by whoever is at it next, so that nothing else waits for a list that comes slowly.
    pub list: Mutex<List>,
    /// The output, where it is one that can be looked into.
    pub place: Option<Place>,
    /// The file as it was, if any.
    pub before: Option<Seed>,
}

/// Where blocks come from, be they the file's or its list's.
pub struct Sources {
    pub servers: Servers,
    /// By their numbers.
    pub mirrors: Vec<Mirror>,
    pub fetcher: Arc<Fetcher>,
    pub dir: Option<BlockDir>,
    /// Where what is fetched is kept. Taken away at the end, while some worker may still wait for a
    /// server or for the list: so the right to write is given up in order, and nothing waits.
    pub keep: RwLock<Option<Writer>>,
    pub seeds: Vec<Seed>,
    pub spare: Spare,
    /// Nobody wants what is still being looked for.
    pub stop: AtomicBool,
}

/// What a worker is to do.
pub enum Task {
    /// Take lines off the list, and find their blocks: so many, or more where what is at hand is in
    /// its place already, or has one.
    Take(usize),
    /// Find these, which failed before, or are not of the list.
    Again(Vec<Wanted>),
}

/// What came of a task, or of a part of it: what was fetched goes to the output as it comes.
#[derive(Default)]
pub struct Done {
    pub parts: Vec<Part>,
    /// Blocks that nobody gave; `passing` if somebody may do so a little later.
    pub nobody: Vec<Wanted>,
    pub passing: bool,
    /// Whether this was the rest of it.
    pub finished: bool,
    /// Whether the blocks had failed before.
    pub again: bool,
    /// Whether the list was at its end, or goes on with a line that is not one.
    pub ended: bool,
    pub refused: Option<Error>,
}

/// Results that wait for the writer, some 128 KiB each: where the disk is slower than the network,
/// workers wait.
const RESULTS: usize = 16;

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
        let (results, done) = mpsc::sync_channel(RESULTS);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut count = 0;
        for _ in 0..jobs {
            let (shared, waiting) = (Arc::clone(shared), Arc::clone(&waiting));
            let results = results.clone();
            let work = move || work(&shared, &waiting, &results);
            match spawn(STACK, Box::new(work)) {
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

fn work(shared: &Shared, waiting: &Mutex<Receiver<Task>>, results: &SyncSender<Result<Done>>) {
    let mut worker = Worker::new(&shared.sources, Some(shared), Some(results));
    loop {
        // A statement of its own, so that the lock is let go before the work.
        let task = lock(waiting).recv();
        let Ok(task) = task else { return };
        // Without a word from this one, its task would be waited for without end.
        let run = catch_unwind(AssertUnwindSafe(|| worker.run(task)));
        let done = run.unwrap_or_else(|_| Err(Error::local("run", "a worker", "it panicked")));
        if results.send(done).is_err() {
            return;
        }
    }
}

/// Where a worker puts the blocks that it finds.
pub struct Sink<'a> {
    sources: &'a Sources,
    /// Told of parts of a task before all of it is done. None if nobody wants to know.
    results: Option<&'a SyncSender<Result<Done>>>,
    parts: Parts<'a>,
    again: bool,
}

impl Sink<'_> {
    /// Takes in the block that `read` fetches into the place that it is given. False if it gives
    /// none.
    ///
    /// # Errors
    /// Those of `read`, and what fails on this machine.
    pub fn push<E: From<Error>>(
        &mut self,
        wanted: &Wanted,
        read: impl FnOnce(&mut [u8; READ_SIZE]) -> std::result::Result<Option<Block<&[u8]>>, E>,
    ) -> std::result::Result<bool, E> {
        let Some(block) = self.parts.push(wanted, Kind::Fetched, read)? else {
            return Ok(false);
        };
        keep(self.sources, &block)?;
        if self.parts.is_due() {
            self.tell();
        }
        Ok(true)
    }

    /// Sends on what there is. Where nobody listens any more the task's end will tell.
    fn tell(&mut self) {
        let Some(results) = self.results else { return };
        let parts = self.parts.take();
        if !parts.is_empty() {
            let again = self.again;
            let _ = results.send(Ok(Done {
                parts,
                again,
                ..Done::default()
            }));
        }
    }
}

/// Not synced: a block that a power cut damages counts as absent, and is fetched again.
pub fn keep(sources: &Sources, block: &Block<&[u8]>) -> Result<()> {
    let keep = sources.keep.read();
    if let Some(writer) = &*keep.unwrap_or_else(PoisonError::into_inner) {
        let mut hand = writer.hand();
        if let Some(temporary) = hand.stage(block)? {
            hand.publish(temporary, &block.hash())?;
        }
    }
    Ok(())
}

pub struct Worker<'a> {
    sources: &'a Sources,
    /// None for one that finds blocks of a list.
    shared: Option<&'a Shared>,
    local: Local<'a>,
    sink: Sink<'a>,
}

/// Finds one block, at once; tells its length, or that nobody has it.
///
/// # Errors
/// What fails on this machine.
pub fn find(shared: &Shared, wanted: &Wanted) -> Result<Option<usize>> {
    let mut worker = Worker::new(&shared.sources, Some(shared), None);
    let done = worker.run(Task::Again(vec![*wanted]))?;
    Ok(done.parts.first().map(|part| part.end.length))
}

impl<'a> Worker<'a> {
    pub fn new(
        sources: &'a Sources,
        shared: Option<&'a Shared>,
        results: Option<&'a SyncSender<Result<Done>>>,
    ) -> Self {
        Worker {
            sources,
            shared,
            local: Local::new(sources, shared),
            sink: Sink {
                sources,
                results,
                parts: Parts::new(&sources.spare),
                again: false,
            },
        }
    }

    /// # Errors
    /// What fails on this machine.
    pub fn run(&mut self, task: Task) -> Result<Done> {
        self.sink.again = matches!(task, Task::Again(_));
        let mut done = Done {
            again: self.sink.again,
            finished: true,
            ..Done::default()
        };
        let mut turn = self.sources.servers.turn();
        let mut absent = match task {
            Task::Take(most) => self.take(turn.length.min(most), most, &mut done)?,
            Task::Again(wanted) => self.look(wanted)?,
        };
        // What is at hand need not wait for what is not.
        self.sink.tell();
        while !absent.is_empty() && !self.is_stopped() {
            let later = absent.split_off(turn.length.min(absent.len()));
            let (nobody, passing) = self.fetch(absent, turn)?;
            done.nobody.extend(nobody);
            done.passing |= passing;
            absent = later;
            if absent.is_empty() {
                break;
            }
            turn = self.sources.servers.turn();
        }
        done.parts = self.sink.parts.take();
        Ok(done)
    }

    /// Takes lines until there are so many of them whose blocks are not at hand as make a `run`.
    /// Where blocks must go out in order, those at hand are held, so that there are at most `most`
    /// lines.
    fn take(&mut self, run: usize, most: usize, done: &mut Done) -> Result<Vec<Wanted>> {
        let Some(shared) = self.shared else {
            return Ok(Vec::new());
        };
        let is_stream = shared.place.is_none();
        let (mut absent, mut lines) = (Vec::new(), 0);
        while absent.len() < run && !(is_stream && lines >= most) && !self.is_stopped() {
            let due = run - absent.len();
            let due = if is_stream {
                due.min(most - lines)
            } else {
                due
            };
            let taken = lock(&shared.list).take(due);
            let wanted = taken.unwrap_or_else(|error| {
                done.refused = Some(error);
                Vec::new()
            });
            let count = wanted.len();
            lines += count;
            absent.append(&mut self.look(wanted)?);
            done.ended = count == 0;
            if count < due {
                break;
            }
            if !is_stream && self.sink.parts.is_due() {
                self.sink.tell();
            }
        }
        Ok(absent)
    }

    fn is_stopped(&self) -> bool {
        self.sources.stop.load(Relaxed)
    }

    /// Takes in what is at hand; returns what is not.
    fn look(&mut self, mut wanted: Vec<Wanted>) -> Result<Vec<Wanted>> {
        let mut failure = None;
        wanted.retain(|wanted| {
            let found = self.local.find(wanted, &mut self.sink.parts);
            !found.unwrap_or_else(|error| {
                failure = Some(error);
                true
            })
        });
        failure.map_or(Ok(wanted), Err)
    }

    /// Takes in what the servers give; returns what nobody gave, and whether somebody may later.
    fn fetch(&mut self, wanted: Vec<Wanted>, turn: Turn) -> Result<(Vec<Wanted>, bool)> {
        let Sources {
            servers,
            fetcher,
            mirrors,
            ..
        } = self.sources;
        // A mirror has the file, and nothing of its list.
        let mirrored = self.shared.is_some();
        servers.fetch(wanted, turn, mirrored, |url, way, wanted| match way {
            Way::Get => {
                let asked = ask::for_one(fetcher, url, &wanted[0], &mut self.sink);
                // The next may take as long as a server takes.
                self.sink.tell();
                asked
            }
            Way::Post => ask::for_many(fetcher, url, wanted, &mut self.sink),
            Way::Range(number) => mirrors[number].ask(fetcher, url, wanted, &mut self.sink),
        })
    }
}
