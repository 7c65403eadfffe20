//! What is there of FILE before the work: whether it is right already, and what of it is of use.
//!
//! This file only reads; FILE is written by `output.rs`.

use std::fs::File;
use std::path::Path;

use super::target::Target;
use crate::block::{self, BLOCK_SIZE, Buffer, Slot};
use crate::error::{Error, Result};
use crate::file::{self, read_at, sync, sync_name};
use crate::get::block_ref::BlockRef;
use crate::get::list::List;
use crate::get::sources::seed::Seed;
use crate::hash::Hash;
use crate::root::Tree;
use crate::sys;

/// Bytes read at once where a whole file is read.
const PIECE: usize = 64 * BLOCK_SIZE;

/// What may hold much of the file that is to be `target`: FILE as it is, and as far as it came. What
/// cannot be read is left out.
pub fn partial_copies(target: &Target) -> Vec<Seed> {
    let file = target.open_to_read().ok().flatten();
    let part = file::open_regular(&target.part()).ok();
    let seeds = [file, part].into_iter().flatten();
    seeds.filter_map(|file| Seed::new(file).ok()).collect()
}

/// The bytes of FILE, if it is already the one that `root` stands for. What cannot be read is not.
pub fn has_root(path: &Path, root: &Hash) -> Option<u64> {
    let mut file = file::open_regular(path).ok()?;
    let (mut tree, mut size) = (Tree::default(), 0);
    let mut buffer = vec![0; PIECE];
    loop {
        let length = block::fill(&mut file, &mut buffer).ok()?;
        for bytes in buffer[..length].chunks(BLOCK_SIZE) {
            tree.push(Hash::of(bytes), &mut |_| Ok(())).ok()?;
        }
        size += length as u64;
        if length < buffer.len() {
            let found = tree.finish(size, &mut |_| Ok(())).ok()?;
            return (found == *root).then_some(size);
        }
    }
}

/// Whether FILE is already all that `list`, not yet read, says. Stops at the first difference.
///
/// # Errors
/// As the list's.
pub fn is_right(path: &Path, list: &mut List) -> Result<bool> {
    let Ok(file) = file::open_regular(path) else {
        return Ok(false);
    };
    let mut buffer = Buffer::new();
    let mut size = 0;
    list.tell_last();
    while let Some(wanted) = list.next()? {
        let mut slot = buffer.slot();
        read_right(&file, &wanted, &mut slot);
        let Some(length) = slot.length() else {
            return Ok(false);
        };
        size += length as u64;
    }
    Ok(file.metadata().is_ok_and(|metadata| metadata.len() == size))
}

/// Brings FILE, which is all there already, to the disk: the run that wrote it may have been killed before.
///
/// # Errors
/// When the disk refuses.
pub fn sync_existing(path: &Path) -> Result<()> {
    let synced = match file::open_regular(path).and_then(|file| sync(&file)) {
        // Where nothing is ever written there is nothing to sync (squashfs).
        Err(e) if !sys::is_unsupported(&e) => Err(e),
        _ => sync_name(path),
    };
    synced.map_err(|e| Error::io("sync", path.display(), &e))
}

/// Reads the block into `slot`, if it lies at its own place in `file`.
pub fn read_right(file: &File, wanted: &BlockRef, slot: &mut Slot) -> bool {
    let length = read_at(file, &mut slot.room()[..BLOCK_SIZE], wanted.offset());
    if slot.accept(length, &wanted.hash) {
        return true;
    }
    if !wanted.last {
        return false;
    }
    // It may be a short one, and the file or device goes on after it.
    let shorter = wanted.hash.length_in(&slot.room()[..length]);
    shorter.is_some_and(|length| slot.accept(length, &wanted.hash))
}
