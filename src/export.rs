//! `psync export`: input to blocks to block directory to hashlist.
//!
//! The input is taken in runs of blocks by as many threads as there are processors; each thread
//! hashes its run and stages what the directory lacks. A batch of runs is put in place at once,
//! and only then are its lines printed, in the order of the input.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::block::{self, BLOCK_SIZE, Block};
use crate::console::Stdout;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::hashlist;
use crate::store::{BlockDir, Temporary, View, Writer};

/// Blocks that one thread takes at a time: 256 KiB, little enough to stay in a processor's cache.
const RUN: usize = 64;

/// Runs to a batch: 16 MiB of input. Each batch costs a sync, and a kill costs a batch.
const BATCH: usize = 64;

/// More threads than this only wait for each other in the directory.
const MAX_THREADS: usize = 4;

/// What the command line asks for.
pub struct Options {
    /// None: standard input.
    pub input: Option<PathBuf>,
    /// None: only print.
    pub store: Option<BlockDir>,
    /// Whether a line printed means a block that survives a power cut.
    pub durable: bool,
}

/// Runs the command.
///
/// # Errors
/// When the input cannot be read, the block directory not be written, or the lines not be printed.
pub fn run(options: &Options) -> Result<()> {
    let mut stdout = Stdout::new()?;
    let mut source = Source::open(options)?;
    let writer = options.store.as_ref().map(BlockDir::writer).transpose()?;
    let mut workers: Vec<Worker> = (0..threads())
        .map(|_| Worker::new(options.store.as_ref()))
        .collect();
    loop {
        let batch = stage_batch(&mut source, writer.as_ref(), &mut workers)?;
        if let Some(writer) = &writer {
            let staged = batch
                .iter()
                .filter_map(|line| Some((line.staged?, line.hash)));
            writer.publish(staged, options.durable)?;
        }
        let mut text = Vec::with_capacity(batch.len() * (crate::hash::HEX_LEN + 1));
        batch
            .iter()
            .for_each(|line| hashlist::push_line(&mut text, &line.hash));
        stdout.write(&text)?;
        if source.ended {
            return Ok(());
        }
    }
}

fn threads() -> usize {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS)
}

/// Where the bytes come from, and how far they were taken.
struct Source {
    input: Box<dyn Read + Send>,
    name: String,
    /// Runs taken in this batch.
    taken: usize,
    ended: bool,
}

impl Source {
    fn open(options: &Options) -> Result<Self> {
        let (input, name): (Box<dyn Read + Send>, _) = match &options.input {
            Some(path) => {
                let name = path.display().to_string();
                (
                    Box::new(File::open(path).map_err(|e| Error::io("open", &name, &e))?),
                    name,
                )
            }
            None => (Box::new(io::stdin()), "standard input".to_owned()),
        };
        Ok(Source {
            input,
            name,
            taken: 0,
            ended: false,
        })
    }

    /// Reads the next run of the batch; returns its place in the batch and its length in bytes.
    /// None at the end of the batch, or of the input.
    fn take(&mut self, buffer: &mut [u8]) -> Result<Option<(usize, usize)>> {
        if self.ended || self.taken == BATCH {
            return Ok(None);
        }
        let read = block::fill(&mut self.input, buffer);
        let length = read.map_err(|e| {
            self.ended = true;
            Error::io("read", &self.name, &e)
        })?;
        self.ended = length < buffer.len();
        self.taken += 1;
        Ok((length > 0).then_some((self.taken - 1, length)))
    }
}

/// A line of the hashlist to be, and its block where that is yet to be put in place.
struct Line {
    hash: Hash,
    staged: Option<Temporary>,
}

/// What a thread keeps from batch to batch.
struct Worker {
    buffer: Vec<u8>,
    view: Option<View>,
}

impl Worker {
    fn new(store: Option<&BlockDir>) -> Self {
        Worker {
            buffer: vec![0; RUN * BLOCK_SIZE],
            view: store.map(BlockDir::view),
        }
    }
}

/// Takes runs until the batch is full or the input ends, on all workers at once. Does with fewer
/// where the machine gives no more threads.
fn stage_batch(
    source: &mut Source,
    writer: Option<&Writer>,
    workers: &mut [Worker],
) -> Result<Vec<Line>> {
    source.taken = 0;
    let source = Mutex::new(source);
    let seen = Mutex::new(HashSet::new());
    let work = |worker: &mut Worker| stage_runs(&source, writer, worker, &seen);
    let mut runs = thread::scope(|scope| {
        let mut workers = workers.iter_mut();
        let own = workers.next();
        let others: Vec<_> = workers
            .map_while(|worker| {
                thread::Builder::new()
                    .spawn_scoped(scope, || work(worker))
                    .ok()
            })
            .collect();
        let mut done: Vec<_> = own.into_iter().map(work).collect();
        for other in others {
            done.push(
                other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
        }
        done.into_iter().collect::<Result<Vec<_>>>()
    })?
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    runs.sort_unstable_by_key(|(place, _)| *place);
    Ok(runs.into_iter().flat_map(|(_, lines)| lines).collect())
}

/// One worker's part of a batch: runs with their places.
fn stage_runs(
    source: &Mutex<&mut Source>,
    writer: Option<&Writer>,
    worker: &mut Worker,
    seen: &Mutex<HashSet<Hash>>,
) -> Result<Vec<(usize, Vec<Line>)>> {
    let mut runs = Vec::new();
    loop {
        let taken = source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(&mut worker.buffer)?;
        let Some((place, length)) = taken else {
            return Ok(runs);
        };
        let mut lines = Vec::with_capacity(RUN);
        for bytes in worker.buffer[..length].chunks(BLOCK_SIZE) {
            let block = Block::new(bytes);
            let mut staged = None;
            if let (Some(writer), Some(view)) = (writer, &mut worker.view) {
                // A block that occurs again in a batch needs no second look: files of zeros.
                if seen
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(block.hash())
                {
                    staged = writer.stage(view, &block)?;
                }
            }
            lines.push(Line {
                hash: block.hash(),
                staged,
            });
        }
        runs.push((place, lines));
    }
}
