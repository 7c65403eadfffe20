//! FILE before the work: whether it is right already, and which of its blocks are in their places.
//!
//! This file owns these answers. It reads FILE, and leaves writing to `output.rs`.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::target::Target;
use crate::block::{self, Buffer, Slot};
use crate::error::{Error, Result};
use crate::file::{sync, sync_name};
use crate::get::block_ref::BlockRef;
use crate::get::list::List;
use crate::get::sources::seed::Seed;
use crate::hash::Hash;
use crate::sys;

/// A file as it was before the work: FILE, or FILE.part.
pub struct OldFile {
    pub seed: Arc<Seed>,
    pub path: PathBuf,
    /// A device goes on behind the file.
    is_device: bool,
    /// Blocks, from the first on, that are known to be what the list says.
    right: u64,
}

impl OldFile {
    /// The file of `seed`, whose name is `path`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(seed: io::Result<Seed>, path: PathBuf) -> Result<Self> {
        let opened = seed.and_then(|seed| Ok((seed.file().metadata()?, seed)));
        let (there, seed) = opened.map_err(|e| Error::io("read", path.display(), &e))?;
        Ok(OldFile {
            seed: Arc::new(seed),
            path,
            is_device: there.file_type().is_block_device(),
            right: 0,
        })
    }

    /// Opens FILE. None if it does not exist, or this user may write it but not read it. Only a file that
    /// is replaced is a seed as well: a file that is written in place may lose its other blocks any time.
    ///
    /// # Errors
    /// As [`Target::open_to_read`].
    pub fn open(target: &Target) -> Result<Option<Self>> {
        let Some(file) = target.open_to_read()? else {
            return Ok(None);
        };
        let seed = match target.in_place {
            true => Seed::at_own_places(file),
            false => Seed::new(file),
        };
        OldFile::new(seed, target.path.clone()).map(Some)
    }

    /// # Errors
    /// When the file is a device, and ends before the byte `end`.
    pub fn check_end(&self, end: u64) -> Result<()> {
        let size = self.seed.size();
        if !self.is_device || end <= size {
            return Ok(());
        }
        let cause = format!("it has {size} bytes, too few for the file");
        Err(Error::local("write", self.path.display(), cause))
    }

    /// Whether the file is complete with `size` bytes, now.
    pub fn ends_at(&self, size: u64) -> bool {
        let now = self.seed.file().metadata();
        self.is_device || now.is_ok_and(|now| now.len() == size)
    }

    /// Reads `list`, whose length is known, from its first line on, and the file beside it, and notes which blocks are right. Returns
    /// the number of blocks if all are. Else stops at the first difference, and reads the rest of the file for
    /// the index, so that no block is read twice.
    ///
    /// # Errors
    /// As the list's.
    pub fn compare_with_list(&mut self, list: &mut List) -> Result<Option<u64>> {
        let (index, mut buffer, mut size) = (self.seed.new_index(), Buffer::new(), 0);
        let is_right = loop {
            let Some(wanted) = list.next()? else {
                break self.ends_at(size);
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
        Ok(is_right.then_some(self.right))
    }

    /// The number of blocks, if the file is a regular one and all that `root` stands for. Reads the whole file,
    /// and makes its own list, as [`Seed::root`] does.
    pub fn blocks_if_root_is(&self, root: &Hash) -> Option<u64> {
        let size = self.seed.size();
        let is_right = !self.is_device && self.seed.root().as_ref() == Some(root);
        (is_right && self.ends_at(size)).then(|| block::count(size))
    }

    /// The length of the block, if it is in its place. Reads it into `slot` only where neither the check
    /// nor the file's own list tells.
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
            // The last block may be shorter than the file's own.
            Some(false) if !wanted.last => None,
            _ => {
                wanted.read_from(self.seed.file(), slot);
                slot.length()
            }
        }
    }

    /// Brings the file, which is right already, to the disk: a kill may have kept an earlier run from that.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&self) -> Result<()> {
        let synced = match sync(self.seed.file()) {
            // A file system that takes no writes needs no sync (squashfs).
            Err(e) if !sys::is_unsupported(&e) => Err(e),
            _ => sync_name(&self.path),
        };
        synced.map_err(|e| Error::io("sync", self.path.display(), &e))
    }
}
