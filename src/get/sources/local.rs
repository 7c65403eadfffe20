//! Blocks that are on this machine: in the output, in the block directory, in seeds. Each source reads
//! a block into a slot and verifies it there; a damaged block counts as absent. One `Local` a worker.

use std::sync::Arc;

use super::Sources;
use super::seed::Seed;
use crate::block::{BLOCK_SIZE, Buffer, Slot};
use crate::error::{Error, Result};
use crate::get::block_ref::BlockRef;
use crate::get::output::existing::OldFile;
use crate::get::output::sink::{Origin, Sink};
use crate::hash::Hash;
use crate::root::Root;
use crate::store::View;

/// Reads blocks that are on this machine.
pub trait LocalSource {
    /// Reads the block into `slot`. False where this source lacks it.
    ///
    /// # Errors
    /// When the machine is too short of something to look.
    fn find(&mut self, wanted: &BlockRef, slot: &mut Slot) -> Result<bool>;

    /// What its blocks count as.
    fn origin(&self) -> Origin {
        Origin::Local
    }
}

impl LocalSource for View {
    fn find(&mut self, wanted: &BlockRef, slot: &mut Slot) -> Result<bool> {
        let read = self.read(&wanted.hash, slot);
        read.map_err(|e| Error::io("read block", wanted.hash, &e))
    }
}

impl LocalSource for &Seed {
    fn find(&mut self, wanted: &BlockRef, slot: &mut Slot) -> Result<bool> {
        Ok(Seed::find(self, wanted, slot))
    }
}

/// A seed whose blocks are found at their own places.
struct AtOwnPlaces<'a>(&'a Seed);

impl LocalSource for AtOwnPlaces<'_> {
    fn find(&mut self, wanted: &BlockRef, slot: &mut Slot) -> Result<bool> {
        Ok(self.0.find_at_own_place(wanted, slot))
    }
}

/// The own lists of seeds, in which blocks of a list under a root lie at their own places.
pub struct OwnLists<'a> {
    pub root: &'a Root,
    /// 1 is the hashlist of the file.
    pub level: u32,
    pub seeds: Vec<&'a Seed>,
}

impl LocalSource for OwnLists<'_> {
    fn find(&mut self, wanted: &BlockRef, slot: &mut Slot) -> Result<bool> {
        let found = self.seeds.iter().any(|seed| {
            let block = seed.list_block(self.root, self.level, wanted.number);
            block.is_some_and(|block| {
                slot.room()[..block.len()].copy_from_slice(&block);
                slot.accept(block.len(), &wanted.hash)
            })
        });
        Ok(found)
    }

    fn origin(&self) -> Origin {
        Origin::Derived
    }
}

/// All sources of one worker, in the order in which they are asked.
pub struct Local<'a> {
    /// What the blocks are written to: those that are there need not be written.
    in_place: Option<&'a OldFile>,
    sources: Vec<Box<dyn LocalSource + 'a>>,
    /// The hash of a block of zeros, which needs no source.
    zeros: Hash,
    buffer: Buffer,
}

impl<'a> Local<'a> {
    fn new(in_place: Option<&'a OldFile>, sources: Vec<Box<dyn LocalSource + 'a>>) -> Self {
        Local {
            in_place,
            sources,
            zeros: Hash::of(&[0; BLOCK_SIZE]),
            buffer: Buffer::new(),
        }
    }

    /// For blocks of a file that is written to `in_place`, and of which `old` files are here.
    pub fn of_file(
        sources: &'a Sources,
        in_place: Option<&'a OldFile>,
        old: &'a [Arc<Seed>],
    ) -> Self {
        let mut all: Vec<Box<dyn LocalSource + 'a>> = Vec::new();
        for seed in old {
            all.push(Box::new(AtOwnPlaces(seed)));
        }
        if let Some(dir) = &sources.dir {
            all.push(Box::new(dir.view()));
        }
        for seed in sources.seeds.iter().chain(old.iter().map(|seed| &**seed)) {
            all.push(Box::new(seed));
        }
        Local::new(in_place, all)
    }

    /// For blocks of a list.
    pub fn of_list(sources: &Sources, own_lists: Option<OwnLists<'a>>) -> Self {
        let mut all: Vec<Box<dyn LocalSource + 'a>> = Vec::new();
        if let Some(own_lists) = own_lists {
            all.push(Box::new(own_lists));
        }
        if let Some(dir) = &sources.dir {
            all.push(Box::new(dir.view()));
        }
        Local::new(None, all)
    }

    /// Puts the block into `sink`. False where no source has it.
    ///
    /// # Errors
    /// When the machine is too short of something to look, or the block directory refuses.
    pub fn find(&mut self, wanted: &BlockRef, sink: &mut Sink) -> Result<bool> {
        if let Some(length) = self.find_in_place(wanted) {
            sink.note_in_place(wanted, length);
            return Ok(true);
        }
        if wanted.hash == self.zeros {
            sink.note_zeros(wanted)?;
            return Ok(true);
        }
        for source in &mut self.sources {
            if source.find(wanted, &mut sink.slot(wanted, source.origin()))? {
                return sink.commit();
            }
        }
        Ok(false)
    }

    /// The block's length, if it is in its place.
    pub fn find_in_place(&mut self, wanted: &BlockRef) -> Option<usize> {
        let in_place = self.in_place?;
        in_place.find_in_place(wanted, &mut self.buffer.slot())
    }

    /// The block's length, if any other source has it.
    ///
    /// # Errors
    /// When the machine is too short of something to look.
    pub fn find_elsewhere(&mut self, wanted: &BlockRef) -> Result<Option<usize>> {
        if wanted.hash == self.zeros {
            return Ok(Some(BLOCK_SIZE));
        }
        let mut slot = self.buffer.slot();
        for source in &mut self.sources {
            if source.find(wanted, &mut slot)? {
                break;
            }
        }
        Ok(slot.length())
    }
}
