//! Blocks that are at hand: in the output, in the block directory, in seeds. All of them are
//! verified as they are read, and a bad one counts as absent. One `Local` a worker.

use std::mem;

use super::seed::Seed;
use crate::block::{BLOCK_SIZE, Block, READ_SIZE};
use crate::error::{Error, Result};
use crate::get::block_ref::BlockRef;
use crate::get::output::Place;
use crate::get::output::sink::{Keep, Kind, Parts};
use crate::hash::Hash;
use crate::store::{BlockDir, View};

pub struct Local<'a> {
    keep: &'a Keep,
    place: Option<&'a Place>,
    view: Option<View>,
    seeds: Vec<&'a Seed>,
    /// The hash of a block of nothing but zeros, which is always at hand.
    zeros: Hash,
    /// Whether it is kept where what is fetched is kept.
    zeros_are_kept: bool,
    buffer: Box<[u8; READ_SIZE]>,
}

impl<'a> Local<'a> {
    /// Blocks of a list are looked for in the block directory alone, without a `place` and `seeds`.
    pub fn new(
        dir: Option<&BlockDir>,
        keep: &'a Keep,
        place: Option<&'a Place>,
        seeds: Vec<&'a Seed>,
    ) -> Self {
        Local {
            keep,
            place,
            view: dir.map(BlockDir::view),
            seeds,
            zeros: Hash::of(&[0; BLOCK_SIZE]),
            zeros_are_kept: false,
            buffer: Box::new([0; READ_SIZE]),
        }
    }

    /// Puts the block into `parts`. False where it is not at hand.
    ///
    /// # Errors
    /// When the machine is too short of something to look, or the block directory refuses.
    pub fn find(&mut self, wanted: &BlockRef, parts: &mut Parts<'_>) -> Result<bool> {
        let hash = &wanted.hash;
        if let Some(place) = self.place {
            if let Some(length) = place.read_in_place(wanted, &mut self.buffer) {
                parts.note(wanted, Kind::Right, length);
                return Ok(true);
            }
            let unchanged = parts.push(wanted, Kind::AtHand, |room| {
                Ok::<_, Error>(place.read_old(wanted, room))
            });
            if unchanged?.is_some() {
                return Ok(true);
            }
        }
        if *hash == self.zeros {
            self.keep_zeros()?;
            parts.note(wanted, Kind::Zeros, BLOCK_SIZE);
            return Ok(true);
        }
        if let Some(view) = &mut self.view {
            let stored = parts.push(wanted, Kind::AtHand, |room| {
                let failed = |e| Error::io("read block", hash, &e);
                view.read(hash, room).map_err(failed)
            });
            if stored?.is_some() {
                return Ok(true);
            }
        }
        for seed in &self.seeds {
            let found = parts.push(wanted, Kind::AtHand, |room| {
                Ok::<_, Error>(seed.find(hash, room))
            });
            if found?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// No server is ever asked for zeros, but whoever has the directory without psync wants them too.
    fn keep_zeros(&mut self) -> Result<()> {
        if !mem::replace(&mut self.zeros_are_kept, true) {
            self.keep.keep(&Block::new(&[0; BLOCK_SIZE][..]))?;
        }
        Ok(())
    }
}
