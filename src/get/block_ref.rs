//! One line of a hashlist: which block is wanted, and where it goes.
//!
//! This file owns the check of a block that is read from a file. It reads no list, and keeps no block.

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
    /// Whether this is known to be the last block of the file, which alone may be shorter.
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

    /// Whether the first `length` bytes in `slot` are the block, or begin with it if it is the last: a device
    /// goes on after that.
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
