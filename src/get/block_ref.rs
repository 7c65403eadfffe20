//! One line of a hashlist, as all of `get` passes it on: which block is wanted, and where it goes.

use std::fs::File;

use crate::block::{self, BLOCK_SIZE, Slot};
use crate::file::read_at;
use crate::hash::Hash;

/// One line of the list: a block and its place in the file.
#[derive(Clone, Copy, Debug)]
pub struct BlockRef {
    /// Counted from 0.
    pub number: u64,
    pub hash: Hash,
    /// The last block of the file, where that is known: only that may be shorter.
    pub last: bool,
}

impl BlockRef {
    /// Where the block begins, in bytes.
    pub fn offset(&self) -> u64 {
        block::offset(self.number)
    }

    /// Reads the block into `slot`, if it lies at its own place in `file`.
    pub fn read_from(&self, file: &File, slot: &mut Slot) -> bool {
        let length = read_at(file, &mut slot.room()[..BLOCK_SIZE], self.offset());
        self.accept(length, slot)
    }

    /// Whether the block is the first `length` bytes in `slot`, from a file that may go on after the
    /// last block: that one may then be shorter.
    pub fn accept(&self, length: usize, slot: &mut Slot) -> bool {
        if slot.accept(length, &self.hash) {
            return true;
        }
        if !self.last {
            return false;
        }
        let shorter = self.hash.length_in(&slot.room()[..length]);
        shorter.is_some_and(|length| slot.accept(length, &self.hash))
    }
}
