//! Seeds: files that may hold blocks of the wanted one, such as an older version of it.
//!
//! A seed is read and hashed once, when the first block is looked for in it. What is found by its
//! index is read again and verified, so a seed that changes meanwhile is never believed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use crate::block::{Block, READ_SIZE};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::index::{self, Index};

/// A file whose blocks can be found by their hashes. Shared by all workers.
pub struct Seed {
    file: File,
    /// In bytes, when it was opened.
    size: u64,
    /// None where it is too large for the memory: then it is no seed.
    index: OnceLock<Option<Index>>,
}

impl Seed {
    /// # Errors
    /// When it is not there, or is not a file whose parts can be read in any order.
    pub fn open(path: &Path) -> Result<Self> {
        let seed = index::open(path).and_then(|(file, _)| Seed::new(file));
        seed.map_err(|e| Error::io("read seed", path.display(), &e))
    }

    /// # Errors
    /// When the file has no size, as a pipe has none.
    pub fn new(file: File) -> io::Result<Self> {
        Ok(Seed {
            size: index::size(&file)?,
            file,
            index: OnceLock::new(),
        })
    }

    /// The block, verified, wherever it lies in the file.
    pub fn find<'b>(
        &self,
        hash: &Hash,
        buffer: &'b mut [u8; READ_SIZE],
    ) -> Option<Block<&'b [u8]>> {
        let index = self.index.get_or_init(|| {
            let index = Index::new(self.size)?;
            index.read(&self.file, &mut |_| {});
            Some(index)
        });
        index.as_ref()?.find(&self.file, hash, buffer)
    }
}
