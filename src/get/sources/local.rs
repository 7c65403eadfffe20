//! Local blocks: in the output, in the block directory, in seeds.
//!
//! This file owns the order of these sources. Each reads a block into a slot and verifies it there; a
//! damaged block counts as absent. One `Local` a worker. This file contacts no server.

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

/// Where a local block may lie.
enum LocalSource<'a> {
    AtOwnPlace(&'a Seed),
    Anywhere(&'a Seed),
    BlockDir(View),
    SeedLists(SeedLists<'a>),
}

impl LocalSource<'_> {
    /// Reads the block into `slot`. False where this source lacks it.
    ///
    /// # Errors
    /// When the machine is short of file descriptors or memory, which says nothing about the block.
    fn find(&mut self, wanted: &BlockRef, slot: &mut Slot) -> Result<bool> {
        match self {
            LocalSource::AtOwnPlace(seed) => Ok(seed.find_at_own_place(wanted, slot)),
            LocalSource::Anywhere(seed) => Ok(seed.find(wanted, slot)),
            LocalSource::BlockDir(view) => {
                let read = view.read(&wanted.hash, slot);
                read.map_err(|e| Error::io("read block", wanted.hash, &e))
            }
            LocalSource::SeedLists(lists) => Ok(lists.find(wanted, slot)),
        }
    }

    /// How the report counts its blocks.
    fn origin(&self) -> Origin {
        match self {
            LocalSource::SeedLists(_) => Origin::Derived,
            _ => Origin::Local,
        }
    }
}

/// The own lists of seeds, in which blocks of a list under a root lie at their own places.
pub struct SeedLists<'a> {
    pub root: &'a Root,
    /// 1 is the hashlist of the file.
    pub level: u32,
    pub seeds: Vec<&'a Seed>,
}

impl SeedLists<'_> {
    fn find(&self, wanted: &BlockRef, slot: &mut Slot) -> bool {
        self.seeds.iter().any(|seed| {
            let block = seed.derive_list_block(self.root, self.level, wanted.number);
            block.is_some_and(|block| {
                slot.room()[..block.len()].copy_from_slice(&block);
                slot.accept(block.len(), &wanted.hash)
            })
        })
    }
}

/// All sources of one worker, in the order of the search.
pub struct Local<'a> {
    /// The file that the blocks go to: a block in its place there needs no write.
    in_place: Option<&'a OldFile>,
    sources: Vec<LocalSource<'a>>,
    /// The hash of a block of zeros, which needs no source.
    zeros: Hash,
    buffer: Buffer,
}

impl<'a> Local<'a> {
    /// For blocks of a file that goes to `in_place`. The `old_seeds` are older states of it.
    pub fn of_file(
        sources: &'a Sources,
        in_place: Option<&'a OldFile>,
        old_seeds: &'a [Arc<Seed>],
    ) -> Self {
        let first = old_seeds.iter().map(|seed| LocalSource::AtOwnPlace(seed));
        let old_seeds = old_seeds.iter().chain(in_place.map(|file| &file.seed));
        let seeds = sources.seeds.iter().chain(old_seeds.map(|seed| &**seed));
        // A search without an index would cost time for each block.
        let seeds = seeds.filter(|seed| seed.may_have_index());
        Local::new(in_place, first, sources, seeds)
    }

    /// For blocks of a list.
    pub fn of_list(sources: &'a Sources, seed_lists: Option<SeedLists<'a>>) -> Self {
        let first = seed_lists.map(LocalSource::SeedLists);
        Local::new(None, first, sources, [])
    }

    /// The search goes to `first`, then to the block directory, then to `seeds`.
    fn new(
        in_place: Option<&'a OldFile>,
        first: impl IntoIterator<Item = LocalSource<'a>>,
        sources: &'a Sources,
        seeds: impl IntoIterator<Item = &'a Seed>,
    ) -> Self {
        let block_dir = sources
            .dir
            .as_ref()
            .map(|dir| LocalSource::BlockDir(dir.view()));
        let seeds = seeds.into_iter().map(LocalSource::Anywhere);
        Local {
            in_place,
            sources: first.into_iter().chain(block_dir).chain(seeds).collect(),
            zeros: Hash::of(&[0; BLOCK_SIZE]),
            buffer: Buffer::new(),
        }
    }

    /// Puts the block into `sink`. False where no source has it.
    ///
    /// # Errors
    /// As [`LocalSource::find`]; when the block directory refuses a copy.
    pub fn find(&mut self, wanted: &BlockRef, sink: &mut Sink) -> Result<bool> {
        if let Some(in_place) = self.in_place
            && let Some(length) = in_place.find_in_place(wanted, &mut self.buffer.slot())
        {
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
}
