//! Seeds: files that may hold blocks of the wanted one, such as an older version of it.
//!
//! This file owns a seed's index (`index.rs`) and, where a root is given, its own hashlist
//! (`own_list.rs`). One reading of the seed, at the first need, makes both. Each block that the index
//! finds is read again and verified, so a seed may change meanwhile. This file writes no seed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use super::own_list::OwnList;
use crate::block::{self, BLOCK_SIZE, Slot};
use crate::error::{Error, Result};
use crate::file::{self, read_at};
use crate::get::block_ref::BlockRef;
use crate::hash::Hash;
use crate::hashlist::{LINE, push_line};
use crate::index::{self, Index};
use crate::root::{Root, Tree};

/// Blocks read at once where a whole seed is read in order.
const BLOCKS_AT_ONCE: usize = 64;

/// A file whose blocks can be found by their hashes. Shared by all workers.
pub struct Seed {
    file: File,
    /// In bytes, when it was opened.
    size: u64,
    /// None once it is known that the seed has no index.
    index: OnceLock<Option<Index>>,
    /// None once it is known that there is no room for the list: its lines are then made from the seed again.
    own_list: OnceLock<Option<OwnList>>,
}

impl Seed {
    /// # Errors
    /// When the file is absent, or is one that can only be read in order.
    pub fn open(path: &Path) -> Result<Self> {
        let seed = file::open(path).and_then(|(file, _)| Seed::new(file));
        seed.map_err(|e| Error::io("read seed", path.display(), &e))
    }

    /// # Errors
    /// When the file has no size, as a pipe has none.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Seed {
            size: file::size(&file)?,
            file,
            index: OnceLock::new(),
            own_list: OnceLock::new(),
        })
    }

    /// A seed of which only blocks at their own places count: it needs no index.
    ///
    /// # Errors
    /// As [`Seed::new`].
    pub fn at_own_places(file: File) -> io::Result<Self> {
        let seed = Seed::new(file)?;
        let _ = seed.index.set(None);
        Ok(seed)
    }

    /// False once it is known that the seed has no index.
    pub fn may_have_index(&self) -> bool {
        !matches!(self.index.get(), Some(None))
    }

    /// Keeps the seed from writing its own list to `$TMPDIR`.
    pub fn write_nothing(&self) {
        let _ = self.own_list.set(None);
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads the block into `slot`, wherever it lies in the seed. False where the index lacks it.
    pub fn find(&self, wanted: &BlockRef, slot: &mut Slot) -> bool {
        let index = self.index();
        index.is_some_and(|index| index.find(&self.file, &wanted.hash, slot))
    }

    /// Reads the block into `slot`, if it lies at its own place.
    pub fn find_at_own_place(&self, wanted: &BlockRef, slot: &mut Slot) -> bool {
        match self.index() {
            // The last block may be shorter than the seed's, which the index has.
            Some(index) if !wanted.last && !index.has(wanted.number, &wanted.hash) => false,
            _ => wanted.read_from(&self.file, slot),
        }
    }

    /// None where the seed needs none, or it does not fit into memory.
    fn index(&self) -> Option<&Index> {
        let read = || self.read(self.blocks_from(0), Index::new(self.size), None);
        self.index.get_or_init(read).as_ref()
    }

    /// An empty index for a seed that still needs one.
    pub fn new_index(&self) -> Option<Index> {
        match self.index.get() {
            Some(_) => None,
            None => Index::new(self.size),
        }
    }

    /// Takes an `index` of the blocks before `first`, and reads the others for it. Does nothing where
    /// the seed has its index.
    pub fn complete(&self, index: Option<Index>, first: u64) {
        let read = || self.read(self.blocks_from(first), index, None);
        self.index.get_or_init(read);
    }

    fn blocks_from(&self, first: u64) -> Range<u64> {
        first..block::count(self.size)
    }

    /// Reads these blocks of the seed, by several threads, and adds them to the `index` and the list.
    fn read(
        &self,
        blocks: Range<u64>,
        index: Option<Index>,
        own_list: Option<&OwnList>,
    ) -> Option<Index> {
        let take = |first: u64, hashes: &[Hash]| {
            if let Some(index) = &index {
                index.add_all(first, hashes);
            }
            if let Some(own_list) = own_list {
                own_list.write(first, hashes);
            }
        };
        if index.is_some() || own_list.is_some() {
            index::hash_blocks(&self.file, blocks, &take, &mut |_| {});
        }
        index
    }

    /// The seed's own list. The first call reads the seed, and makes the index as well. A seed that needs no
    /// index is read up to `most` blocks: a device may be much longer than the file. None where the seed writes
    /// nothing, or `$TMPDIR` has no room for the list.
    fn own_list(&self, most: u64) -> Option<&OwnList> {
        let make = || {
            let (mut blocks, mut reserve) = (block::count(self.size), self.size);
            if !self.may_have_index() {
                (blocks, reserve) = (blocks.min(most), 0);
            }
            let list = OwnList::new(&self.file, blocks, reserve)?;
            let index = self.read(0..blocks, self.new_index(), Some(&list));
            let _ = self.index.set(index);
            list.is_whole().then_some(list)
        };
        self.own_list.get_or_init(make).as_ref()
    }

    /// Whether the block lies at its own place, where that is known without reading it.
    pub fn is_known_to_have(&self, wanted: &BlockRef) -> Option<bool> {
        let own_list = self.own_list.get()?.as_ref()?;
        Some(own_list.has(wanted.number, &wanted.hash))
    }

    /// The root that stands for the seed. None, or a root of no file, where the seed cannot be read.
    pub fn root(&self) -> Option<Hash> {
        let mut tree = Tree::default();
        let mut take = |hash| tree.push(hash, &mut |_| Ok(())).ok();
        if let Some(list) = self.own_list(u64::MAX) {
            let mut lines = list.lines();
            while let Some(hash) = lines.next().ok()? {
                take(hash)?;
            }
        } else {
            let mut buffer = vec![0; BLOCKS_AT_ONCE * BLOCK_SIZE];
            for first in (0..block::count(self.size)).step_by(BLOCKS_AT_ONCE) {
                let length = read_at(&self.file, &mut buffer, block::offset(first));
                let mut blocks = buffer[..length].chunks(BLOCK_SIZE);
                blocks.try_for_each(|block| take(Hash::of(block)))?;
            }
        }
        tree.finish(self.size, &mut |_| Ok(())).ok()
    }

    /// A block of one of this seed's own lists, as long as `root`'s list has it. Level 1 is the hashlist, and 0
    /// the seed itself. None where the seed is too short.
    ///
    /// An update in place leaves most blocks of a list as they were. An insertion changes all blocks behind it,
    /// and no search finds them at another place: a line's length does not divide a block's.
    pub fn derive_list_block(&self, root: &Root, level: u32, number: u64) -> Option<Vec<u8>> {
        let start = block::offset(number);
        let mut block = vec![0; root.block_length(level, number)];
        let blocks = root.blocks(0);
        // The last line may be that of a longer block than `root`'s file has.
        let is_before_last = start + block.len() as u64 <= (blocks - 1) * LINE as u64;
        match (level, self.own_list(blocks)) {
            (0, _) => (read_at(&self.file, &mut block, start) == block.len()).then_some(block),
            (1, Some(own_list)) if is_before_last => {
                own_list.read(&mut block, start).then_some(block)
            }
            _ => {
                // The level below gives each line.
                let lines = start / LINE as u64..(start + block.len() as u64).div_ceil(LINE as u64);
                let skipped = usize::try_from(start - lines.start * LINE as u64).ok()?;
                let mut text = Vec::with_capacity(BLOCK_SIZE + 2 * LINE);
                for line in lines {
                    let below = self.derive_list_block(root, level - 1, line)?;
                    push_line(&mut text, &Hash::of(&below));
                }
                let length = block.len();
                block.copy_from_slice(text.get(skipped..skipped + length)?);
                Some(block)
            }
        }
    }
}
