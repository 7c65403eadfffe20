//! Blocks that are at hand: in the block directory. One `Local` a worker.

use crate::block::{Block, READ_SIZE};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::store::{BlockDir, View};

pub struct Local {
    view: Option<View>,
    buffer: Box<[u8; READ_SIZE]>,
}

impl Local {
    pub fn new(dir: Option<&BlockDir>) -> Self {
        Local {
            view: dir.map(BlockDir::view),
            buffer: Box::new([0; READ_SIZE]),
        }
    }

    /// The block, verified, or none where it is not at hand.
    ///
    /// # Errors
    /// When the machine is too short of something to look.
    pub fn find(&mut self, hash: &Hash) -> Result<Option<Block<Vec<u8>>>> {
        let Some(view) = &mut self.view else {
            return Ok(None);
        };
        let found = view
            .read(hash, &mut self.buffer)
            .map_err(|e| Error::io("read block", hash, &e))?;
        Ok(found.map(Block::into_owned))
    }
}
