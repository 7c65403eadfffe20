//! Workers: threads that find blocks. They read whatever is at hand, ask servers for the rest, a run
//! of blocks at once, and keep what they fetched; they never write the output.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use super::block_ref::BlockRef;
use super::list::List;
use super::output::Place;
use super::output::sink::{Sink, TaskReport};
use super::sources::local::Local;
use super::sources::outcome::RequestKind;
use super::sources::seed::Seed;
use super::sources::servers::RunStart;
use super::sources::{Sources, blocks};
use crate::error::Result;
use crate::mutex::lock;

/// What all workers share that put a file together.
pub struct Shared {
    pub sources: Arc<Sources>,
    /// Each worker reads its own lines, so that nothing else waits for a list that comes slowly.
    pub list: Mutex<List>,
    /// The output, where it is one that can be looked into.
    pub place: Option<Place>,
    /// The file as it was, if any.
    pub before: Option<Seed>,
}

/// What a worker is to do.
pub enum Task {
    /// Take lines off the list, and find their blocks: so many, or more where what is at hand is in
    /// its place already, or has one.
    Take(usize),
    /// Find these, which failed before.
    Again(Vec<BlockRef>),
}

pub struct Worker<'a> {
    sources: &'a Sources,
    /// None for one that finds blocks of a list.
    shared: Option<&'a Shared>,
    local: Local<'a>,
    sink: Sink<'a>,
}

impl<'a> Worker<'a> {
    pub fn new(
        sources: &'a Sources,
        shared: Option<&'a Shared>,
        results: Option<&'a SyncSender<Result<TaskReport>>>,
    ) -> Self {
        Worker {
            sources,
            shared,
            local: match shared {
                Some(shared) => {
                    let seeds = sources.seeds.iter().chain(&shared.before);
                    Local::new(shared.place.as_ref(), sources.dir.as_ref(), seeds)
                }
                // Of a list's blocks only the block directory has any.
                None => Local::new(None, sources.dir.as_ref(), []),
            },
            sink: Sink::new(&sources.keep, &sources.spare, results),
        }
    }

    /// # Errors
    /// What fails on this machine.
    pub fn run(&mut self, task: Task) -> Result<TaskReport> {
        self.sink.is_retry = matches!(task, Task::Again(_));
        let mut done = TaskReport {
            is_retry: self.sink.is_retry,
            finished: true,
            ..TaskReport::default()
        };
        let mut turn = self.sources.servers.turn();
        let mut absent = match task {
            Task::Take(most) => self.take(turn.length.min(most), most, &mut done)?,
            Task::Again(wanted) => self.look(wanted)?,
        };
        // Local blocks need not wait for the others.
        self.sink.flush();
        while !absent.is_empty() && !self.is_stopped() {
            let later = absent.split_off(turn.length.min(absent.len()));
            let (missing, transient) = self.fetch(absent, turn)?;
            done.missing.extend(missing);
            done.transient |= transient;
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
    fn take(&mut self, run: usize, most: usize, done: &mut TaskReport) -> Result<Vec<BlockRef>> {
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
            done.list_ended = count == 0;
            if count < due {
                break;
            }
            if !is_stream && self.sink.parts.is_due() {
                self.sink.flush();
            }
        }
        Ok(absent)
    }

    fn is_stopped(&self) -> bool {
        self.sources.stop.load(Relaxed)
    }

    /// Takes in the local blocks; returns the others.
    fn look(&mut self, mut wanted: Vec<BlockRef>) -> Result<Vec<BlockRef>> {
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

    /// Takes in what the servers give; returns what is missing, and whether a server may give it later.
    fn fetch(&mut self, wanted: Vec<BlockRef>, turn: RunStart) -> Result<(Vec<BlockRef>, bool)> {
        let Sources {
            servers,
            client,
            mirrors,
            ..
        } = self.sources;
        // A mirror has the file, and nothing of its list.
        let mirrored = self.shared.is_some();
        servers.fetch(wanted, turn, mirrored, |url, way, wanted| match way {
            RequestKind::Single => {
                let asked = blocks::for_one(client, url, &wanted[0], &mut self.sink);
                // The next may take as long as a server takes.
                self.sink.flush();
                asked
            }
            RequestKind::Batch => blocks::for_many(client, url, wanted, &mut self.sink),
            RequestKind::Range(number) => mirrors[number].ask(client, url, wanted, &mut self.sink),
        })
    }
}
