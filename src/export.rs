//! `psync export`: input to blocks to block directory to hashlist.
//!
//! Each of a few threads takes runs of blocks from the input, hashes them, and stages those that the
//! block directory lacks. Then the staged blocks of a batch of runs are put in place, and only then its
//! lines are printed, in the order of the input. `store.rs` owns how a block is written.

use std::collections::HashSet;
use std::fs::File;
use std::mem;
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

/// Runs to a batch: 16 MiB of input. A batch costs one sync, and a kill loses one batch at most.
const BATCH: usize = 64;

/// More threads than this only wait for each other in the directory.
const MAX_THREADS: usize = 4;

/// What the command line requests.
pub struct Options {
    /// None: standard input.
    pub input: Option<PathBuf>,
    /// None: only print.
    pub store: Option<BlockDir>,
    /// Whether a block survives a power cut once its line is printed.
    pub durable: bool,
    /// Whether the list and those above it are stored too, and only the root is printed.
    pub root: bool,
}

/// Runs the command.
///
/// # Errors
/// When the input cannot be read, the block directory cannot be written, or the lines cannot be printed.
pub fn run(options: &Options) -> Result<()> {
    let mut stdout = Stdout::new()?;
    let mut source = Source::open(options)?;
    let writer = options.store.as_ref().map(BlockDir::writer).transpose()?;
    let durable = writer.as_ref().filter(|_| options.durable);
    let block_writer = || writer.as_ref().map(Writer::block_writer);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let worker = |_| Worker {
        buffer: vec![0; RUN * BLOCK_SIZE],
        writer: block_writer(),
    };
    let mut workers: Vec<_> = (0..threads.min(MAX_THREADS)).map(worker).collect();
    let mut list_writer = block_writer();
    let mut tree = options.root.then(Tree::default);
    while !source.ended {
        let mut batch = stage_batch(&mut source, &mut workers)?;
        let mut text = Vec::with_capacity(batch.len() * LINE);
        if let Some(tree) = &mut tree {
            let mut list_blocks = Vec::new();
            let mut stage_list = |block: &Block| {
                list_blocks.push(stage(&mut list_writer, block)?);
                Ok(())
            };
            for line in &batch {
                tree.push(line.hash, &mut stage_list)?;
            }
            if source.ended {
                let root = mem::take(tree).finish(source.bytes, &mut stage_list)?;
                hashlist::push_line(&mut text, &root);
            }
            batch.append(&mut list_blocks);
        } else {
            for line in &batch {
                hashlist::push_line(&mut text, &line.hash);
            }
        }
        durable.map_or(Ok(()), Writer::sync)?;
        publish_batch(&batch, &mut workers)?;
        durable.map_or(Ok(()), Writer::sync_names)?;
        stdout.write(&text)?;
    }
    Ok(())
}

/// A block's hash, and the block where it is yet to be put in place.
struct Line {
    hash: Hash,
    staged: Option<Temporary>,
}

/// Stages a block, unless it is only to be printed.
fn stage(writer: &mut Option<BlockWriter>, block: &Block) -> Result<Line> {
    let staged = writer.as_mut().map(|writer| writer.stage(block));
    let staged = staged.transpose()?.flatten();
    let hash = block.hash();
    Ok(Line { hash, staged })
}

/// The input, and how much of it the workers have taken.
struct Source {
    input: File,
    name: String,
    /// Runs taken in this batch.
    taken: usize,
    ended: bool,
    /// Bytes taken.
    bytes: u64,
    /// Blocks of the input, where its length is known.
    blocks: Option<u64>,
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
        // Metadata has no length of a pipe or device.
        let length = input.metadata().ok().map(|metadata| metadata.len());
        Ok(Source {
            input,
            name,
            taken: 0,
            ended: false,
            bytes: 0,
            blocks: length.filter(|&length| length > 0).map(block::count),
            progress: Progress::new(true, true),
        })
    }

    /// Reads the next run of the batch; returns its number in the batch and its length in bytes.
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
        let done = block::count(self.bytes);
        self.progress.draw(done, self.blocks, String::new);
        Ok((length > 0).then_some((self.taken - 1, length)))
    }
}

/// What a thread keeps from batch to batch.
struct Worker<'a> {
    buffer: Vec<u8>,
    /// None: only print.
    writer: Option<BlockWriter<'a>>,
}

/// Does `work` with all workers at once, or with fewer if the machine refuses a thread.
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
            let started = thread::Builder::new().spawn_scoped(scope, move || work(worker));
            started.ok()
        };
        let others: Vec<_> = others.iter_mut().map_while(start).collect();
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
    runs.sort_unstable_by_key(|(number, _)| *number);
    Ok(runs.into_iter().flat_map(|(_, lines)| lines).collect())
}

/// One worker's part of a batch: runs with their numbers in it.
fn stage_runs(
    source: &Mutex<&mut Source>,
    worker: &mut Worker,
    seen: &Mutex<HashSet<Hash>>,
) -> Result<Vec<(usize, Vec<Line>)>> {
    let mut runs = Vec::new();
    // A closure releases the lock before the work.
    let take = |buffer: &mut [u8]| lock(source).take(buffer);
    while let Some((number, length)) = take(&mut worker.buffer)? {
        let mut lines = Vec::with_capacity(RUN);
        for bytes in worker.buffer[..length].chunks(BLOCK_SIZE) {
            let block = Block::of(bytes);
            let hash = block.hash();
            // A repeated block of a batch is looked up once: files full of zeros.
            let is_new = worker.writer.is_some() && lock(seen).insert(hash);
            lines.push(match is_new {
                true => stage(&mut worker.writer, &block)?,
                false => Line { hash, staged: None },
            });
        }
        runs.push((number, lines));
    }
    Ok(runs)
}

/// Puts the staged blocks of a batch in place.
fn publish_batch(batch: &[Line], workers: &mut [Worker]) -> Result<()> {
    let runs = Mutex::new(batch.chunks(RUN));
    with_all(workers, |worker| {
        let next = || lock(&runs).next();
        while let (Some(writer), Some(run)) = (&mut worker.writer, next()) {
            for line in run {
                if let Some(temporary) = line.staged {
                    writer.publish(temporary, &line.hash)?;
                }
            }
        }
        Ok(())
    })
    .map(drop)
}
