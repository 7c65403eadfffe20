//! The lists under a root: the file's hashlist, the hashlist of that, and so on (`crate::root`).
//!
//! Each level is a reader of text. It reads hashes from the level above, and looks for their blocks in
//! what a seed's own list would be, the block directory, and the servers. One thread reads the lowest
//! level and feeds the reader of the file's list by a pipe. No level is ever held whole. What a level
//! gives is exactly as long as the root says, and has its line ends where they belong.

use std::io::{self, BufReader, Cursor, Read};
use std::sync::{Arc, Mutex};
use std::thread;

use super::Upper;
use crate::block::{self, BLOCK_SIZE, Block};
use crate::error::{Error, Result};
use crate::get::block_ref::BlockRef;
use crate::get::finder::{Task, Worker};
use crate::get::output::sink::{Origin, Part};
use crate::get::rounds::Rounds;
use crate::get::sources::Sources;
use crate::get::sources::seed::Seed;
use crate::hash::Hash;
use crate::hashlist::{LINE, Reader, push_line};
use crate::mutex::lock;
use crate::root::Root;
use crate::spawn::{ASKING_STACK, spawn};

/// Blocks of a list that are looked for at once, at most: 512 KiB, which say where 32 MiB of the file
/// are. Where most of them are at hand, as in an update, each time costs a round trip. At first it is
/// one, so that a slow line soon has blocks of the file to carry.
const RUN: usize = 128;

/// What all levels of one root share.
pub struct ListTree {
    sources: Arc<Sources>,
    /// The root, as messages name it.
    name: String,
    /// Files whose own lists may have blocks of these, besides the seeds.
    partial_copies: Vec<Seed>,
    retry: u32,
    /// What ended the first level that did not come to its end.
    failure: Mutex<Option<Error>>,
}

/// Blocks by their places in what was asked for.
type Found = Vec<Option<Vec<u8>>>;

impl ListTree {
    pub fn new(
        sources: &Arc<Sources>,
        name: &str,
        partial_copies: Vec<Seed>,
        retry: u32,
    ) -> Arc<Self> {
        Arc::new(ListTree {
            sources: Arc::clone(sources),
            name: name.to_owned(),
            partial_copies,
            retry,
            failure: Mutex::default(),
        })
    }

    /// Finds the root block.
    ///
    /// # Errors
    /// Exit code 3 when nobody has it, 2 when it is none.
    pub fn root(&self, hash: Hash) -> Result<Root> {
        let mut found = vec![None];
        self.fetch(&[hash], &mut found)?;
        let text = found.pop().flatten().unwrap_or_default();
        Root::parse(&text).ok_or_else(|| self.malformed("it is the hash of no root block"))
    }

    /// Finds the blocks of `hashes` that are not in `found` yet, in as many rounds as there are for
    /// blocks of the file.
    fn fetch(&self, hashes: &[Hash], found: &mut Found) -> Result<()> {
        let mut worker = Worker::new(&self.sources, None, None);
        let mut rounds = Rounds::new(self.retry);
        let mut wanted = absent(hashes, found);
        while !wanted.is_empty() {
            let done = worker.run(Task::Again(wanted))?;
            for part in done.parts {
                rounds.made_progress |= part.origin == Origin::Fetched;
                self.place(part, found);
            }
            wanted = absent(hashes, found);
            let Some(first) = wanted.first() else { break };
            let Some(pause) = rounds.next().filter(|_| done.transient) else {
                return Err(self.missing(&first.hash));
            };
            thread::sleep(pause);
            self.sources.servers.revive();
        }
        Ok(())
    }

    fn place(&self, part: Part, found: &mut Found) {
        let first = usize::try_from(part.first).unwrap_or(usize::MAX);
        let count = usize::try_from(part.count()).unwrap_or(usize::MAX);
        let places = found.iter_mut().skip(first).take(count);
        if part.origin.has_bytes() {
            for (bytes, place) in part.row.bytes().chunks(BLOCK_SIZE).zip(places) {
                *place = Some(bytes.to_vec());
            }
            self.sources.spare.put(part.row);
        } else {
            // Zeros come without bytes.
            places.for_each(|place| *place = Some(vec![0; BLOCK_SIZE]));
        }
    }

    fn missing(&self, hash: &Hash) -> Error {
        let hash = hash.to_string();
        let what = if hash == self.name {
            "its root block".to_owned()
        } else {
            format!("block {hash} of its list")
        };
        let cause =
            format_args!("{what} could not be had; the same command later goes on from here")
                .to_string();
        Error::missing("get", &self.name, cause)
    }

    fn malformed(&self, cause: &str) -> Error {
        Error::malformed("read root", &self.name, cause)
    }
}

impl Upper for ListTree {
    /// The text of the file's hashlist, as it comes.
    ///
    /// # Errors
    /// When the machine gives no thread for a level.
    fn text(self: Arc<Self>, root: &Arc<Root>) -> Result<Box<dyn Read + Send>> {
        let mut text = Vec::new();
        for hash in &root.hashes {
            push_line(&mut text, hash);
        }
        let mut text: Box<dyn Read + Send> = Box::new(Cursor::new(text));
        for number in (1..=root.depth).rev() {
            text = Box::new(Level {
                tree: Arc::clone(&self),
                root: Arc::clone(root),
                number,
                hashes: Reader::new(BufReader::new(text), self.name.clone()),
                found: 0,
                run: 1,
                text: Cursor::default(),
                failure: None,
            });
        }
        if root.depth == 0 {
            return Ok(text);
        }
        let (reader, mut writer) = io::pipe().map_err(|e| Error::io("open", "a pipe", &e))?;
        let feed = move || {
            if let Err(e) = io::copy(&mut text, &mut writer) {
                let error = Error::io("write", "a pipe", &e);
                lock(&self.failure).get_or_insert(error);
            }
        };
        spawn(ASKING_STACK, Box::new(feed))?;
        Ok(Box::new(reader))
    }

    /// What ended a level before its end, if anything did.
    fn failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }
}

/// The hashes whose blocks are not found yet, each by its place.
fn absent(hashes: &[Hash], found: &Found) -> Vec<BlockRef> {
    let due = (0..).zip(hashes.iter().zip(found));
    due.filter(|(_, (_, block))| block.is_none())
        .map(|(number, (&hash, _))| BlockRef {
            number,
            hash,
            // No block of the file.
            last: false,
        })
        .collect()
}

/// One of the lists, 1 being the file's own: its text, to be read.
struct Level {
    tree: Arc<ListTree>,
    root: Arc<Root>,
    number: u32,
    /// The lines of the level above.
    hashes: Reader<BufReader<Box<dyn Read + Send>>>,
    /// Blocks found so far, and how many to look for next.
    found: u64,
    run: usize,
    /// What was found last.
    text: Cursor<Vec<u8>>,
    /// What ends the text behind that.
    failure: Option<Error>,
}

impl Read for Level {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.text.read(buffer)?;
        if length > 0 || buffer.is_empty() {
            return Ok(length);
        }
        if self.failure.is_none() && self.found < self.root.blocks(self.number) {
            self.find_run();
        }
        let length = self.text.read(buffer)?;
        if length == 0
            && let Some(error) = self.failure.take()
        {
            // The first to fail says why; the others end because it did.
            lock(&self.tree.failure).get_or_insert(error);
            self.found = self.root.blocks(self.number);
        }
        Ok(length)
    }
}

impl Level {
    /// Finds the blocks of the next hashes. Where one is missing, those before it are found all the
    /// same.
    fn find_run(&mut self) {
        let mut text = Vec::with_capacity(self.run * BLOCK_SIZE);
        self.failure = self.find(&mut text).err();
        self.text = Cursor::new(text);
        self.run = RUN.min(2 * self.run);
    }

    fn find(&mut self, text: &mut Vec<u8>) -> Result<()> {
        let (first, left) = (self.found, self.root.blocks(self.number) - self.found);
        let (mut wanted, mut whole) = (Vec::new(), Ok(()));
        while wanted.len() < self.run && (wanted.len() as u64) < left {
            match self.hashes.next() {
                Ok(Some(hash)) => wanted.push(hash),
                ended => {
                    // What is above has its right length, so it ends early only where its level failed.
                    whole = ended.and_then(|_| Err(self.tree.malformed("its list is cut off")));
                    break;
                }
            }
        }
        let seeded = |(number, hash): (u64, &Hash)| self.find_seeded(number, hash);
        let mut blocks = (first..)
            .zip(&wanted)
            .map(seeded)
            .collect::<Result<Found>>()?;
        let fetched = self.tree.fetch(&wanted, &mut blocks);
        for block in blocks {
            let Some(block) = block else { break };
            if !self.is_list(self.found, &block) {
                return Err(self.tree.malformed("its hashes do not fit its size"));
            }
            text.extend_from_slice(&block);
            self.found += 1;
        }
        fetched.and(whole)
    }

    /// The block, where some seed's own list has it at the same place.
    fn find_seeded(&self, number: u64, hash: &Hash) -> Result<Option<Vec<u8>>> {
        let tree = &self.tree;
        for seed in tree.sources.seeds.iter().chain(&tree.partial_copies) {
            let text = seed.list_block(&self.root, self.number, number);
            if let Some(block) = text.as_deref().and_then(|text| Block::verify(text, hash)) {
                // A box that passes the file on passes its list on too.
                tree.sources.keep.keep(&block)?;
                return Ok(text);
            }
        }
        Ok(None)
    }

    /// Whether a block is as long as it must be, and has line ends where they belong.
    fn is_list(&self, number: u64, text: &[u8]) -> bool {
        let start = block::offset(number);
        let is_end = |at: u64| at % LINE as u64 == LINE as u64 - 1;
        text.len() == self.root.block_length(self.number, number)
            && (start..)
                .zip(text)
                .all(|(at, &c)| (c == b'\n') == is_end(at))
    }
}
