//! The lists under a root: the file's hashlist, the hashlist of that, and so on (`crate::root`).
//!
//! This file owns the levels. Each is a reader of text: it reads hashes from the level above, and finds their
//! blocks in the own lists of seeds, in the block directory, and at the servers. Its text is exactly as long
//! as the root says, and has its line ends where they belong. One thread reads the lowest level and feeds
//! the reader of the file's list by a pipe. This file holds no level whole, and writes no block.

use std::io::{self, BufReader, Cursor, PipeReader, Read};
use std::sync::Arc;
use std::thread;

use super::{List, SharedError};
use crate::block::{self, BLOCK_SIZE};
use crate::error::{Error, Result};
use crate::get::block_ref::BlockRef;
use crate::get::finder::Finder;
use crate::get::output::sink::{Origin, Span};
use crate::get::rounds::Rounds;
use crate::get::sources::Sources;
use crate::get::sources::local::SeedLists;
use crate::get::sources::seed::Seed;
use crate::hash::Hash;
use crate::hashlist::{LINE, Reader, push_line};
use crate::mutex::lock;
use crate::root::Root;
use crate::spawn::{ASKING_STACK, spawn};

/// Blocks of a list that one run fetches at first, 128 KiB, which say where 8 MiB of the file are: each run
/// costs a round trip, and blocks of the file wait for the first.
const FIRST_RUN: usize = 32;

/// Blocks in a run of a list, at most: 512 KiB, the list of 32 MiB of the file.
const MAX_RUN: usize = 128;

/// Blocks of a list in memory, local ones among them: 4 MiB. In an update nearly all are local, and each run
/// costs a round trip.
const MAX_HELD: u64 = 1024;

/// What all levels of one root share.
pub struct ListTree {
    sources: Arc<Sources>,
    root: Hash,
    /// Files whose own lists may have blocks of these lists.
    seeds: Vec<Arc<Seed>>,
    retry: u32,
    /// Why the lists end early: the first error of a level, of which the others are consequences.
    early_end: SharedError,
}

impl ListTree {
    pub fn new(sources: &Arc<Sources>, root: Hash, seeds: Vec<Arc<Seed>>, retry: u32) -> Arc<Self> {
        Arc::new(ListTree {
            sources: Arc::clone(sources),
            root,
            seeds,
            retry,
            early_end: SharedError::default(),
        })
    }

    /// Finds the root block.
    ///
    /// # Errors
    /// Exit code 3 when no source has it, 2 when the block is no root block.
    pub fn root_block(&self) -> Result<Root> {
        let mut finder = Finder::of_list(&self.sources, None);
        let (mut absent, mut spans) = (Vec::new(), Vec::new());
        finder.find_local(&[list_block(0, self.root)], &mut absent)?;
        self.fetch(&mut finder, absent, &mut spans)?;
        let root = spans.first().and_then(|span| Root::parse(span.row.bytes()));
        root.ok_or_else(|| self.malformed("it is the hash of no root block"))
    }

    /// Fetches the `absent` blocks, in as many rounds as blocks of the file have, and adds all that `finder`
    /// found to `spans`.
    fn fetch(
        &self,
        finder: &mut Finder,
        absent: Vec<BlockRef>,
        spans: &mut Vec<Span>,
    ) -> Result<()> {
        let mut rounds = Rounds::new(self.retry);
        let mut report = finder.fetch(absent, self.sources.begin_run())?;
        loop {
            spans.append(&mut report.spans);
            let Some(first) = report.missing.first() else {
                return Ok(());
            };
            let Some(pause) = rounds.next().filter(|_| report.transient) else {
                return Err(self.missing(&first.hash));
            };
            thread::sleep(pause);
            self.sources.revive();
            report = finder.retry(&report.missing)?;
            let is_fetched = |span: &Span| span.origin == Origin::Fetched;
            rounds.made_progress = report.spans.iter().any(is_fetched);
        }
    }

    /// The file's hashlist under `root`, fetched as it is read.
    ///
    /// # Errors
    /// When the machine has no thread or pipe for it.
    pub fn list(self: Arc<Self>, root: Root) -> Result<List> {
        let root = Arc::new(root);
        let mut text = Vec::new();
        for hash in &root.hashes {
            push_line(&mut text, hash);
        }
        let mut text: Box<dyn Read + Send> = Box::new(Cursor::new(text));
        for number in (1..=root.depth()).rev() {
            text = Box::new(Level {
                tree: Arc::clone(&self),
                root: Arc::clone(&root),
                number,
                hashes: Reader::new(BufReader::new(text), self.root.to_string()),
                found: 0,
                run: FIRST_RUN,
                text: Cursor::default(),
                pending_error: None,
            });
        }
        if root.depth() > 0 {
            text = Box::new(self.feed(text)?);
        }
        Ok(List {
            size: Some(root.size),
            early_end: Arc::clone(&self.early_end),
            ..List::new(text, self.root.to_string(), Some(root.blocks(0)))
        })
    }

    /// Starts a thread that reads `text` ahead, into a pipe.
    fn feed(&self, mut text: Box<dyn Read + Send>) -> Result<PipeReader> {
        let (reader, mut writer) = io::pipe().map_err(|e| Error::io("open", "a pipe", &e))?;
        let early_end = Arc::clone(&self.early_end);
        let feed = move || {
            if let Err(e) = io::copy(&mut text, &mut writer) {
                let error = Error::io("write", "a pipe", &e);
                lock(&early_end).get_or_insert(error);
            }
        };
        spawn(ASKING_STACK, Box::new(feed))?;
        Ok(reader)
    }

    fn missing(&self, hash: &Hash) -> Error {
        let what = if *hash == self.root {
            "its root block".to_owned()
        } else {
            format!("block {hash} of its list")
        };
        let cause = format!("{what} could not be had; the same command later goes on from here");
        Error::missing("get", self.root, cause)
    }

    fn malformed(&self, cause: &str) -> Error {
        Error::malformed("read root", self.root, cause)
    }
}

/// A block of a list, which is no block of the file.
fn list_block(number: u64, hash: Hash) -> BlockRef {
    BlockRef {
        number,
        hash,
        last: false,
    }
}

/// The text of one list. Number 1 is the hashlist of the file.
struct Level {
    tree: Arc<ListTree>,
    root: Arc<Root>,
    number: u32,
    /// The lines of the level above.
    hashes: Reader<BufReader<Box<dyn Read + Send>>>,
    /// Blocks found so far, and the length of the next run.
    found: u64,
    run: usize,
    /// The blocks of the last run.
    text: Cursor<Vec<u8>>,
    /// The error that ends the list behind `text`.
    pending_error: Option<Error>,
}

impl Read for Level {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.text.read(buffer)?;
        if length > 0 || buffer.is_empty() {
            return Ok(length);
        }
        if self.pending_error.is_none() && self.found < self.root.blocks(self.number) {
            self.pending_error = self.find_run().err();
        }
        let length = self.text.read(buffer)?;
        if length == 0
            && let Some(error) = self.pending_error.take()
        {
            lock(&self.tree.early_end).get_or_insert(error);
            self.found = self.root.blocks(self.number);
        }
        Ok(length)
    }
}

impl Level {
    /// Finds the blocks of the next hashes, also those before a missing one.
    fn find_run(&mut self) -> Result<()> {
        self.text = Cursor::default();
        let run = self.run;
        self.run = MAX_RUN.min(2 * run);
        let tree = &self.tree;
        let seeds = tree.sources.seeds.iter();
        let seed_lists = SeedLists {
            root: &self.root,
            level: self.number,
            seeds: seeds.chain(tree.seeds.iter().map(|seed| &**seed)).collect(),
        };
        let mut finder = Finder::of_list(&tree.sources, Some(seed_lists));
        let end = self.root.blocks(self.number).min(self.found + MAX_HELD);
        let (mut absent, mut whole) = (Vec::new(), Ok(()));
        for number in self.found..end {
            if absent.len() == run {
                break;
            }
            match self.hashes.next() {
                Ok(Some(hash)) => {
                    finder.find_local(&[list_block(number, hash)], &mut absent)?;
                }
                ended => {
                    // The level above has its right length, and ends early only if it failed.
                    whole = ended.and_then(|_| Err(tree.malformed("its list is cut off")));
                    break;
                }
            }
        }
        let mut spans = Vec::new();
        let fetched = tree.fetch(&mut finder, absent, &mut spans);
        drop(finder);
        spans.sort_unstable_by_key(|span| span.first);
        for span in spans {
            if span.first != self.found {
                break;
            }
            self.take(&span)?;
            self.tree.sources.spare.put(span.row);
        }
        fetched.and(whole)
    }

    /// Adds the blocks of a span to the text.
    fn take(&mut self, span: &Span) -> Result<()> {
        let blocks = span.row.bytes().chunks(BLOCK_SIZE);
        let is_list = |(number, block): (u64, &[u8])| self.is_list(number, block);
        // Zeros come without bytes.
        if !span.origin.has_bytes() || !(self.found..).zip(blocks).all(is_list) {
            return Err(self.tree.malformed("its hashes do not fit its size"));
        }
        self.text.get_mut().extend_from_slice(span.row.bytes());
        self.found += span.count();
        Ok(())
    }

    /// Whether a block is as long as the root says, and has line ends where they belong.
    fn is_list(&self, number: u64, text: &[u8]) -> bool {
        let start = block::offset(number);
        let is_end = |at: u64| at % LINE as u64 == LINE as u64 - 1;
        text.len() == self.root.block_length(self.number, number)
            && (start..)
                .zip(text)
                .all(|(at, &c)| (c == b'\n') == is_end(at))
    }
}
