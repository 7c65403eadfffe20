//! `get --dry-run`: what of the file is here, and what a get would have to fetch.
//!
//! This file counts. It opens everything for reading only, and asks no server.

use std::fs::File;

use super::block_ref::BlockRef;
use super::list::List;
use super::output::existing::read_right;
use super::output::target::{Kind, Target};
use super::sources::Sources;
use super::sources::local::{AtOwnPlace, LocalSource};
use super::sources::seed::Seed;
use crate::block::{self, BLOCK_SIZE, Buffer};
use crate::error::{Error, Result};
use crate::file;
use crate::hash::Hash;
use crate::progress::Progress;

/// What there is of a file's blocks. Those of its lists are not counted.
#[derive(Default)]
pub struct Count {
    pub blocks: u64,
    pub local: u64,
    pub missing: u64,
    /// To be fetched, at most: the last block may be shorter than it is counted.
    pub bytes: u64,
    /// Whether FILE is all that the list says, and no more.
    pub is_complete: bool,
}

impl Count {
    /// Of a file of which not even the root block is here.
    pub fn without_root() -> Self {
        Count {
            missing: 1,
            bytes: BLOCK_SIZE as u64,
            ..Count::default()
        }
    }

    /// Of a FILE that is right.
    pub fn complete(blocks: u64) -> Self {
        Count {
            blocks,
            local: blocks,
            is_complete: true,
            ..Count::default()
        }
    }

    fn add_missing(&mut self, bytes: u64) {
        self.blocks += 1;
        self.missing += 1;
        self.bytes += bytes;
    }
}

/// Looks for each block of `list` in `target`, if any, and in the local `sources`.
///
/// # Errors
/// As the list's; when FILE is there and cannot be read, or is a device that is too small.
pub fn count(
    list: &mut List,
    sources: &Sources,
    target: Option<&Target>,
    is_in_place: bool,
    mut progress: Progress,
) -> Result<Count> {
    let files = target.map(|target| Files::open(target, is_in_place));
    let files = files.transpose()?.unwrap_or_default();
    let mut here = Here::new(sources, &files, target);
    let (mut count, mut size, mut in_place) = (Count::default(), 0, 0);
    here.check_room(list.least_size().unwrap_or(0))?;
    list.tell_last();
    loop {
        let wanted = match list.next() {
            Ok(Some(wanted)) => wanted,
            Ok(None) => break,
            // The rest of the list is not here either, and the root tells how long it is.
            Err(error) if error.is_missing() => {
                let (length, size) = (list.length(), list.size());
                for number in list.given()..length.unwrap_or(0) {
                    count.add_missing(block_length(number, size));
                }
                break;
            }
            Err(error) => return Err(error),
        };
        let length = here.in_place(&wanted);
        in_place += u64::from(length.is_some());
        match length.map_or_else(|| here.find(&wanted), |length| Ok(Some(length)))? {
            Some(length) => {
                size = wanted.offset() + length as u64;
                count.blocks += 1;
                count.local += 1;
            }
            None => {
                let length = block_length(wanted.number, list.size());
                size = wanted.offset() + 1;
                count.add_missing(length);
            }
        }
        progress.draw(count.blocks, list.length(), String::new);
    }
    here.check_room(size)?;
    count.is_complete = in_place == count.blocks && here.ends_at(size);
    Ok(count)
}

/// Bytes of a block of a file of this size, or of one of which that is not known.
fn block_length(number: u64, size: Option<u64>) -> u64 {
    let left = size.map(|size| size.saturating_sub(block::offset(number)));
    left.map_or(BLOCK_SIZE as u64, |left| left.min(BLOCK_SIZE as u64))
}

/// The places on this machine that may have blocks.
struct Here<'a> {
    target: Option<&'a Target>,
    /// FILE, if it is there, and its bytes.
    file: Option<&'a File>,
    size: u64,
    /// A device goes on after the file.
    is_device: bool,
    sources: Vec<Box<dyn LocalSource + 'a>>,
    zeros: Hash,
    buffer: Buffer,
}

impl<'a> Here<'a> {
    fn new(sources: &'a Sources, files: &'a Files, target: Option<&'a Target>) -> Self {
        let mut all: Vec<Box<dyn LocalSource + 'a>> = Vec::new();
        if let Some(part) = &files.part {
            all.push(Box::new(AtOwnPlace(part)));
        }
        if let Some(dir) = &sources.dir {
            all.push(Box::new(dir.view()));
        }
        for seed in sources.seeds.iter().chain(&files.before) {
            all.push(Box::new(seed));
        }
        Here {
            target,
            file: files.file.as_ref(),
            size: files.size,
            is_device: files.is_device,
            sources: all,
            zeros: Hash::of(&[0; BLOCK_SIZE]),
            buffer: Buffer::new(),
        }
    }

    /// The length of the block, if FILE has it at its place.
    fn in_place(&mut self, wanted: &BlockRef) -> Option<usize> {
        let mut slot = self.buffer.slot();
        read_right(self.file?, wanted, &mut slot);
        slot.length()
    }

    /// The length of the block, if it is elsewhere.
    fn find(&mut self, wanted: &BlockRef) -> Result<Option<usize>> {
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

    /// Whether FILE is there and has `size` bytes.
    fn ends_at(&self, size: u64) -> bool {
        self.file.is_some() && (self.is_device || self.size == size)
    }

    /// # Errors
    /// When FILE is a device, and has no room for `least` bytes.
    fn check_room(&self, least: u64) -> Result<()> {
        match &self.target {
            Some(target) if self.is_device && least > self.size => {
                Err(Target::too_small(&target.path, self.size))
            }
            _ => Ok(()),
        }
    }
}

/// What there is of FILE.
#[derive(Default)]
struct Files {
    file: Option<File>,
    size: u64,
    is_device: bool,
    /// FILE.part, in which blocks are found at their own places.
    part: Option<File>,
    /// FILE, whose blocks are found at other places too.
    before: Option<Seed>,
}

impl Files {
    fn open(target: &Target, is_in_place: bool) -> Result<Self> {
        let mut files = Files {
            is_device: matches!(target.kind, Kind::BlockDevice(_)),
            ..Files::default()
        };
        // What is written in place is not read at other places.
        let is_replaced = !files.is_device && !is_in_place;
        if let Some(file) = target.open_to_read()? {
            let failed = |e| Error::io("read", target.path.display(), &e);
            files.size = file::size(&file).map_err(failed)?;
            if is_replaced {
                files.before = Seed::new(file.try_clone().map_err(failed)?).ok();
            }
            files.file = Some(file);
        }
        if is_replaced {
            files.part = file::open_regular(&target.part()).ok();
        }
        Ok(files)
    }
}
