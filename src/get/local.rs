//! Blocks that are at hand: in the output, in the block directory, in seeds. All of them are
//! verified as they are read, and a bad one counts as absent. One `Local` a worker.

use super::list::Wanted;
use super::output::Place;
use super::seed::Seed;
use crate::block::{BLOCK_SIZE, Block, READ_SIZE};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::store::{BlockDir, View};

/// What is at hand for one place of the file.
pub enum Found {
    /// In its place already, with its length.
    Right(usize),
    Block(Block<Vec<u8>>),
}

pub struct Local<'a> {
    place: Option<&'a Place>,
    view: Option<View>,
    seeds: &'a [Seed],
    /// A block of nothing but zeros, which is always at hand.
    zeros: Block<Vec<u8>>,
    buffer: Box<[u8; READ_SIZE]>,
}

impl<'a> Local<'a> {
    pub fn new(place: Option<&'a Place>, dir: Option<&BlockDir>, seeds: &'a [Seed]) -> Self {
        Local {
            place,
            view: dir.map(BlockDir::view),
            seeds,
            zeros: Block::new(vec![0; BLOCK_SIZE]),
            buffer: Box::new([0; READ_SIZE]),
        }
    }

    /// The block, or none where it is not at hand.
    ///
    /// # Errors
    /// When the machine is too short of something to look.
    pub fn find(&mut self, wanted: &Wanted) -> Result<Option<Found>> {
        if let Some(place) = self.place {
            if let Some(length) = place.right(wanted, &mut self.buffer) {
                return Ok(Some(Found::Right(length)));
            }
            if let Some(block) = place.unchanged(wanted, &mut self.buffer) {
                return Ok(Some(Found::Block(block.into_owned())));
            }
        }
        if wanted.hash == self.zeros.hash() {
            return Ok(Some(Found::Block(self.zeros.clone())));
        }
        Ok(self.find_elsewhere(&wanted.hash)?.map(Found::Block))
    }

    fn find_elsewhere(&mut self, hash: &Hash) -> Result<Option<Block<Vec<u8>>>> {
        if let Some(view) = &mut self.view {
            let found = view.read(hash, &mut self.buffer);
            if let Some(block) = found.map_err(|e| Error::io("read block", hash, &e))? {
                return Ok(Some(block.into_owned()));
            }
        }
        for seed in self.seeds {
            if let Some(block) = seed.find(hash, &mut self.buffer) {
                return Ok(Some(block.into_owned()));
            }
        }
        Ok(None)
    }
}
