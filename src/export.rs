//! `psync export`: input to blocks to block directory to hashlist.
//!
//! The input is taken in runs of blocks by as many threads as there are processors; each thread
//! hashes its run and stages what the directory lacks. A batch of runs is put in place at once,
//! and only then are its lines printed, in the order of the input.

use std::collections::HashSet;
use std::fs::File;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use crate::block::{self, BLOCK_SIZE, Block};
use crate::console::{self, Stdout};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::hashlist::{self, LINE};
use crate::mutex::lock;
use crate::progress::Progress;
use crate::root::Tree;
use crate::store::{BlockDir, BlockWriter, Temporary, Writer};

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
    /// Whether the list and what is above it are stored too, and the root alone printed.
    pub root: bool,
}

/// Runs the command.
///
/// # Errors
/// When the input cannot be read, the block directory not be written, or the lines not be printed.
pub fn run(options: &Options) -> Result<()> {
    let mut stdout = Stdout::new()?;
    let mut source = Source::open(options)?;
    let writer = options.store.as_ref().map(BlockDir::writer).transpose()?;
    let writer = writer.as_ref();
    let mut workers: Vec<Worker> = (0..threads()).map(|_| Worker::new(writer)).collect();
    let mut lists = options.root.then(|| Lists::new(writer));
    while !source.ended {
        let mut batch = stage_batch(&mut source, &mut workers)?;
        let mut text = Vec::with_capacity(batch.len() * LINE);
        if let Some(lists) = &mut lists {
            batch = lists.stage(batch)?;
        } else {
            for line in &batch {
                hashlist::push_line(&mut text, &line.hash);
            }
        }
        if source.ended
            && let Some(lists) = lists.take()
        {
            let root = lists.finish(source.bytes, &mut batch)?;
            hashlist::push_line(&mut text, &root);
        }
        publish(&batch, writer.filter(|_| options.durable), &mut workers)?;
        stdout.write(&text)?;
    }
    Ok(())
}

/// Puts a batch in place, for good where a `durable` writer is given.
fn publish(batch: &[Line], durable: Option<&Writer>, workers: &mut [Worker]) -> Result<()> {
    if let Some(writer) = durable {
        writer.sync()?;
    }
    publish_batch(batch, workers)?;
    durable.map_or(Ok(()), Writer::sync_names)
}

/// The blocks of the lists that are above a file.
struct Lists<'a> {
    tree: Tree,
    hand: Option<BlockWriter<'a>>,
}

impl<'a> Lists<'a> {
    fn new(writer: Option<&'a Writer>) -> Self {
        Lists {
            tree: Tree::default(),
            hand: writer.map(Writer::hand),
        }
    }

    /// Adds to a batch the blocks of lists that are full with it.
    fn stage(&mut self, mut batch: Vec<Line>) -> Result<Vec<Line>> {
        let mut lists = Vec::new();
        for line in &batch {
            self.tree
                .push(line.hash, &mut stage_into(&mut self.hand, &mut lists))?;
        }
        batch.append(&mut lists);
        Ok(batch)
    }

    /// Adds the rest of them, and the root block, of a file of `size` bytes. Returns the root.
    fn finish(mut self, size: u64, batch: &mut Vec<Line>) -> Result<Hash> {
        self.tree
            .finish(size, &mut stage_into(&mut self.hand, batch))
    }
}

/// Stages blocks, and adds them to `lines`.
fn stage_into<'a>(
    hand: &'a mut Option<BlockWriter<'_>>,
    lines: &'a mut Vec<Line>,
) -> impl FnMut(&Block) -> Result<()> + 'a {
    move |block| {
        let staged = match hand {
            Some(hand) => hand.stage(block)?,
            None => None,
        };
        let hash = block.hash();
        lines.push(Line { hash, staged });
        Ok(())
    }
}

fn threads() -> usize {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS)
}

/// Where the bytes come from, and how far they were taken.
struct Source {
    input: File,
    name: String,
    /// Runs taken in this batch.
    taken: usize,
    ended: bool,
    bytes: u64,
    /// Blocks taken, of so many where that is known.
    blocks: u64,
    of: Option<u64>,
    progress: Progress,
}

impl Source {
    fn open(options: &Options) -> Result<Self> {
        let (input, name) = match &options.input {
            Some(path) => {
                let name = path.display().to_string();
                let file = File::open(path);
                (file.map_err(|e| Error::io("open", &name, &e))?, name)
            }
            None => (console::stdin()?, "standard input".to_owned()),
        };
        // A pipe's length is not known, and a device's not told.
        let length = input.metadata().ok().map(|metadata| metadata.len());
        Ok(Source {
            input,
            name,
            taken: 0,
            ended: false,
            bytes: 0,
            blocks: 0,
            of: length.filter(|&length| length > 0).map(block::count),
            progress: Progress::new(true, true),
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
        self.bytes += length as u64;
        self.blocks += block::count(length as u64);
        self.progress.draw(self.blocks, self.of, String::new);
        Ok((length > 0).then_some((self.taken - 1, length)))
    }
}

/// A line of the hashlist to be, and its block where that is yet to be put in place.
struct Line {
    hash: Hash,
    staged: Option<Temporary>,
}

/// What a thread keeps from batch to batch.
struct Worker<'a> {
    buffer: Vec<u8>,
    hand: Option<BlockWriter<'a>>,
}

impl<'a> Worker<'a> {
    fn new(writer: Option<&'a Writer>) -> Self {
        Worker {
            buffer: vec![0; RUN * BLOCK_SIZE],
            hand: writer.map(Writer::hand),
        }
    }
}

/// Does `work` with all workers at once, or with fewer where the machine gives no more threads.
fn with_all<'a, R: Send>(
    workers: &mut [Worker<'a>],
    work: impl Fn(&mut Worker<'a>) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let Some((own, others)) = workers.split_first_mut() else {
        return Ok(Vec::new());
    };
    thread::scope(|scope| {
        let start = |worker| {
            let work = &work;
            thread::Builder::new().spawn_scoped(scope, move || work(worker))
        };
        let others: Vec<_> = others
            .iter_mut()
            .map_while(|worker| start(worker).ok())
            .collect();
        let mut done = vec![work(own)];
        for other in others {
            done.push(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done.into_iter().collect()
    })
}

/// Takes runs until the batch is full or the input ends.
fn stage_batch(source: &mut Source, workers: &mut [Worker]) -> Result<Vec<Line>> {
    source.taken = 0;
    let source = Mutex::new(source);
    let seen = Mutex::new(HashSet::new());
    let runs = with_all(workers, |worker| stage_runs(&source, worker, &seen))?;
    let mut runs: Vec<_> = runs.into_iter().flatten().collect();
    runs.sort_unstable_by_key(|(place, _)| *place);
    Ok(runs.into_iter().flat_map(|(_, lines)| lines).collect())
}

/// One worker's part of a batch: runs with their places.
fn stage_runs(
    source: &Mutex<&mut Source>,
    worker: &mut Worker,
    seen: &Mutex<HashSet<Hash>>,
) -> Result<Vec<(usize, Vec<Line>)>> {
    let mut runs = Vec::new();
    loop {
        // A statement of its own, so that the lock is let go before the work.
        let taken = lock(source).take(&mut worker.buffer)?;
        let Some((place, length)) = taken else {
            return Ok(runs);
        };
        let mut lines = Vec::with_capacity(RUN);
        for bytes in worker.buffer[..length].chunks(BLOCK_SIZE) {
            let block = Block::of(bytes);
            let hash = block.hash();
            let staged = match &mut worker.hand {
                // One that occurs again in a batch needs no second look: files full of zeros.
                Some(hand) if lock(seen).insert(hash) => hand.stage(&block)?,
                _ => None,
            };
            lines.push(Line { hash, staged });
        }
        runs.push((place, lines));
    }
}

/// Puts the staged blocks of a batch in place.
fn publish_batch(batch: &[Line], workers: &mut [Worker]) -> Result<()> {
    let runs = Mutex::new(batch.chunks(RUN));
    with_all(workers, |worker| {
        let Some(hand) = &mut worker.hand else {
            return Ok(());
        };
        loop {
            let run = lock(&runs).next();
            let Some(run) = run else {
                return Ok(());
            };
            for line in run {
                if let Some(temporary) = line.staged {
                    hand.publish(temporary, &line.hash)?;
                }
            }
        }
    })?;
    Ok(())
}
