//! One line of a hashlist, as all of `get` passes it on: which block is wanted, and where it goes.

use crate::block;
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
}
