//! Seeds: files that may hold blocks of the wanted one, such as an older version of it.
//!
//! A seed is read and hashed once, when the first block is looked for in it. Its index takes 16
//! bytes a block: 4 MiB for a GiB. What is found by the index is read again and verified, so a
//! seed that changes meanwhile is never believed.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use crate::block::{BLOCK_SIZE, Block, READ_SIZE};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::sys;

/// Bytes read at once to index a seed.
const READ_AHEAD: usize = 64 * BLOCK_SIZE;

/// A file whose blocks can be found by their hashes. Shared by all workers.
pub struct Seed {
    file: File,
    /// In bytes, when it was opened.
    size: u64,
    /// First bytes of each block's hash, and the block's number, sorted.
    index: OnceLock<Vec<(u64, u64)>>,
}

impl Seed {
    /// # Errors
    /// When it is not there, or is not a file whose parts can be read in any order.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            // Without waiting for the other end of a FIFO, which the seek then refuses.
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(sys::O_NONBLOCK)
                .open(path)?;
            if file.metadata()?.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Seed::new(file)
        };
        open().map_err(|e| Error::io("read seed", path.display(), &e))
    }

    /// # Errors
    /// When the file has no size, as a pipe has none.
    pub fn new(mut file: File) -> io::Result<Self> {
        // Not from its metadata: a block device's says 0.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Seed {
            file,
            size,
            index: OnceLock::new(),
        })
    }

    /// The block, verified, wherever it lies in the file.
    pub fn find<'b>(
        &self,
        hash: &Hash,
        buffer: &'b mut [u8; READ_SIZE],
    ) -> Option<Block<&'b [u8]>> {
        let index = self.index.get_or_init(|| self.read_index());
        let prefix = prefix(hash);
        let first = index.partition_point(|&(other, _)| other < prefix);
        let same = index[first..]
            .iter()
            .take_while(|&&(other, _)| other == prefix);
        // The first that is still right. Two are tried, not all: a seed may hold a block many times.
        let length = same.take(2).find_map(|&(_, number)| {
            let length = self.read(number, buffer);
            (Hash::of(&buffer[..length]) == *hash).then_some(length)
        })?;
        Block::verify(&buffer[..length], hash)
    }

    /// Reads block `number`; what cannot be read is short, and so not found.
    fn read(&self, number: u64, buffer: &mut [u8; READ_SIZE]) -> usize {
        read_at(
            &self.file,
            &mut buffer[..BLOCK_SIZE],
            number * BLOCK_SIZE as u64,
        )
    }

    fn read_index(&self) -> Vec<(u64, u64)> {
        let blocks = self.size.div_ceil(BLOCK_SIZE as u64);
        let mut index = Vec::new();
        // A seed too large for the memory is none.
        if index
            .try_reserve_exact(usize::try_from(blocks).unwrap_or(usize::MAX))
            .is_err()
        {
            return index;
        }
        let mut buffer = vec![0; READ_AHEAD];
        let mut number = 0;
        while number < blocks {
            let length = read_at(&self.file, &mut buffer, number * BLOCK_SIZE as u64);
            if length == 0 {
                break;
            }
            for bytes in buffer[..length].chunks(BLOCK_SIZE) {
                index.push((prefix(&Hash::of(bytes)), number));
                number += 1;
            }
        }
        index.sort_unstable();
        index
    }
}

fn prefix(hash: &Hash) -> u64 {
    let [first, second, ..] = hash.words();
    u64::from(first) << 32 | u64::from(second)
}

/// Reads at `offset` until `buffer` is full, the file ends, or it cannot be read on.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    filled
}
