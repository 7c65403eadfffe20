//! Seeds: files that may hold blocks of the wanted one, such as an older version of it.
//!
//! A seed is read and hashed once, when the first block is looked for in it. What is found by its
//! index is read again and verified, so a seed that changes meanwhile is never believed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use crate::block::{self, BLOCK_SIZE, Slot};
use crate::error::{Error, Result};
use crate::file;
use crate::hash::Hash;
use crate::hashlist::{LINE, push_line};
use crate::index::Index;
use crate::root::Root;

/// A file whose blocks can be found by their hashes. Shared by all workers.
pub struct Seed {
    file: File,
    /// In bytes, when it was opened.
    size: u64,
    /// None where it is too large for the memory: then it is no seed.
    index: OnceLock<Option<Index>>,
}

impl Seed {
    /// # Errors
    /// When it is not there, or is not a file whose parts can be read in any order.
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
        })
    }

    /// Reads the block into `slot`, wherever it lies in the file. False where it lies nowhere.
    pub fn find(&self, hash: &Hash, slot: &mut Slot) -> bool {
        let index = self.index.get_or_init(|| {
            let index = Index::new(self.size)?;
            index.read(&self.file, &mut |_| {});
            Some(index)
        });
        let index = index.as_ref();
        index.is_some_and(|index| index.find(&self.file, hash, slot))
    }

    /// The block of this number of a list (level 1 is the hashlist) that this file would have if it
    /// were the size of `root`'s: an update in place leaves most blocks of a list as they were, and
    /// one that moves what is behind it leaves none, nor would they be found at another place,
    /// since lines are no divisor of a block. None where the file is too short. Reads and hashes
    /// what the block stands for, 256 KiB in the hashlist.
    pub fn list_block(&self, root: &Root, level: u32, number: u64) -> Option<Vec<u8>> {
        let length = root.block_length(level, number);
        if level == 0 {
            let mut bytes = vec![0; length];
            let read = file::read_at(&self.file, &mut bytes, block::offset(number));
            return (read == length).then_some(bytes);
        }
        let start = block::offset(number);
        let first = start / LINE as u64;
        let end = start + length as u64;
        let mut lines = Vec::with_capacity(BLOCK_SIZE + 2 * LINE);
        for line in first..end.div_ceil(LINE as u64) {
            let below = self.list_block(root, level - 1, line)?;
            push_line(&mut lines, &Hash::of(&below));
        }
        let skipped = usize::try_from(start - first * LINE as u64).ok()?;
        lines.drain(..skipped);
        lines.truncate(length);
        Some(lines)
    }
}
