//! What is there of FILE before the work: whether it is right already, and which of its blocks are in
//! their places.
//!
//! This file only reads; FILE is written by `output.rs`.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::target::{Kind, Target};
use crate::block::{self, Buffer, Slot};
use crate::error::{Error, Result};
use crate::file::{self, sync, sync_name};
use crate::get::block_ref::BlockRef;
use crate::get::list::List;
use crate::get::sources::seed::{OwnLists, Scope, Seed};
use crate::hash::Hash;
use crate::sys;

/// A file as it was before the work.
pub struct OldFile {
    pub seed: Arc<Seed>,
    /// Blocks, from the first on, that are known to be what the list says.
    right: u64,
    opened: Metadata,
}

impl OldFile {
    pub fn new(file: File, scope: Scope, own_lists: OwnLists) -> io::Result<Self> {
        Ok(OldFile {
            opened: file.metadata()?,
            seed: Arc::new(Seed::new(file, scope, own_lists)?),
            right: 0,
        })
    }

    /// Opens FILE. None where there is none, or this user may write it but not read it. Only a file that
    /// is replaced is a seed as well: one that is written in place may lose its other blocks any time.
    ///
    /// # Errors
    /// As [`Target::open_to_read`].
    pub fn open(target: &Target, is_in_place: bool, own_lists: OwnLists) -> Result<Option<Self>> {
        let Some(file) = target.open_to_read()? else {
            return Ok(None);
        };
        let scope = match target.kind {
            Kind::Regular(_) if !is_in_place => Scope::Anywhere,
            _ => Scope::OwnPlaces,
        };
        let old = OldFile::new(file, scope, own_lists);
        let old = old.map_err(|e| Error::io("read", target.path.display(), &e))?;
        Ok(Some(old))
    }

    /// Whether this is all that `list`, not yet read, says. Stops at the first difference; what is
    /// behind that is then read for the index, so that no block is read twice.
    ///
    /// # Errors
    /// As the list's.
    pub fn has_list(&mut self, list: &mut List) -> Result<bool> {
        let (index, mut buffer, mut size) = (self.seed.new_index(), Buffer::new(), 0);
        list.mark_last_line();
        let is_right = loop {
            let Some(wanted) = list.next()? else {
                break self.seed.size() == size;
            };
            let mut slot = buffer.slot();
            wanted.read_from(self.seed.file(), &mut slot);
            let Some(length) = slot.length() else {
                break false;
            };
            if let Some(index) = &index {
                index.add(&wanted.hash, wanted.number);
            }
            self.right += 1;
            size += length as u64;
        };
        if !is_right {
            self.seed.complete(index, self.right);
        }
        Ok(is_right)
    }

    /// Whether this is all that `root` stands for: then its blocks.
    pub fn has_root(&self, root: &Hash) -> Option<u64> {
        let is_right = self.seed.root().as_ref() == Some(root);
        is_right.then(|| block::count(self.seed.size()))
    }

    /// Whether nobody has written to the file between the openings of this and of `other`.
    pub fn is_as(&self, other: &OldFile) -> bool {
        let mark = |there: &Metadata| {
            let times = (
                there.mtime(),
                there.mtime_nsec(),
                there.ctime(),
                there.ctime_nsec(),
            );
            (there.dev(), there.ino(), there.len(), times)
        };
        mark(&self.opened) == mark(&other.opened)
    }

    /// The length of the block, if it is in its place. It is read into `slot` only where neither the
    /// check nor the file's own list tells.
    pub fn find_in_place(&self, wanted: &BlockRef, slot: &mut Slot) -> Option<usize> {
        let size = self.seed.size();
        if wanted.offset() >= size {
            return None;
        }
        let is_right = match wanted.number < self.right && !wanted.last {
            true => Some(true),
            false => self.seed.is_known_to_have(wanted),
        };
        match is_right {
            Some(true) => Some(block::length(wanted.number, size)),
            // The last block may be shorter than what is there.
            Some(false) if !wanted.last => None,
            _ => {
                wanted.read_from(self.seed.file(), slot);
                slot.length()
            }
        }
    }
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
