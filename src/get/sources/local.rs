//! Blocks that are on this machine: in the output, in the block directory, in seeds. Each source reads
//! them into a slot and verifies them there; a damaged block counts as absent. One `Local` a worker.

use std::fs::File;

use super::seed::Seed;
use crate::block::{BLOCK_SIZE, Buffer, Slot};
use crate::error::{Error, Result};
use crate::get::block_ref::BlockRef;
use crate::get::output::Place;
use crate::get::output::existing::read_right;
use crate::get::output::sink::{Origin, Sink};
use crate::hash::Hash;
use crate::store::{BlockDir, View};

/// Reads blocks that are on this machine.
pub trait LocalSource {
    /// Reads the block into `slot`. False where this source lacks it.
    ///
    /// # Errors
    /// When the machine is too short of something to look.
    fn find(&mut self, wanted: &BlockRef, slot: &mut Slot) -> Result<bool>;
}

/// A file whose blocks are found at their own places.
pub struct AtOwnPlace<'a>(pub &'a File);

impl LocalSource for AtOwnPlace<'_> {
    fn find(&mut self, wanted: &BlockRef, slot: &mut Slot) -> Result<bool> {
        Ok(read_right(self.0, wanted, slot))
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
        Ok(Seed::find(self, &wanted.hash, slot))
    }
}

/// All sources of one worker, in the order in which they are asked.
pub struct Local<'a> {
    /// Where the blocks go: those that are there need not be written.
    place: Option<&'a Place>,
    sources: Vec<Box<dyn LocalSource + 'a>>,
    /// The hash of a block of zeros, which needs no source.
    zeros: Hash,
    buffer: Buffer,
}

impl<'a> Local<'a> {
    pub fn new(
        place: Option<&'a Place>,
        dir: Option<&BlockDir>,
        seeds: impl IntoIterator<Item = &'a Seed>,
    ) -> Self {
        let mut sources: Vec<Box<dyn LocalSource + 'a>> = Vec::new();
        let files = [
            place.and_then(Place::leftover),
            place.and_then(Place::old_file),
        ];
        for file in files.into_iter().flatten() {
            sources.push(Box::new(AtOwnPlace(file)));
        }
        if let Some(dir) = dir {
            sources.push(Box::new(dir.view()));
        }
        for seed in seeds {
            sources.push(Box::new(seed));
        }
        Local {
            place,
            sources,
            zeros: Hash::of(&[0; BLOCK_SIZE]),
            buffer: Buffer::new(),
        }
    }

    /// Puts the block into `sink`. False where no source has it.
    ///
    /// # Errors
    /// When the machine is too short of something to look, or the block directory refuses.
    pub fn find(&mut self, wanted: &BlockRef, sink: &mut Sink) -> Result<bool> {
        let mut slot = self.buffer.slot();
        if let Some(place) = self.place
            && place.read_in_place(wanted, &mut slot)
            && let Some(length) = slot.length()
        {
            sink.note_in_place(wanted, length);
            return Ok(true);
        }
        if wanted.hash == self.zeros {
            sink.note_zeros(wanted)?;
            return Ok(true);
        }
        for source in &mut self.sources {
            if source.find(wanted, &mut sink.slot(wanted, Origin::Local))? {
                return sink.commit();
            }
        }
        Ok(false)
    }
}
