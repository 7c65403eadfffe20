//! The hashlist of a local file, in an unnamed file in `$TMPDIR`: 65 bytes a block, written while the
//! local file is read. It says which blocks lie at their own places, and has blocks of the wanted
//! file's list.
//!
//! This file owns that text. It reads no block.

use std::env;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::file;
use crate::hash::{HEX_LEN, Hash};
use crate::hashlist::{LINE, Reader, push_line};
use crate::sys;

pub struct OwnList {
    text: File,
    is_whole: AtomicBool,
}

impl OwnList {
    /// An empty list for the file `of`, which has this number of `blocks`. None where `$TMPDIR` takes no file, or
    /// where it lies in the file system of `of` and this has no room for the list and `reserve` bytes more.
    pub fn new(of: &File, blocks: u64, reserve: u64) -> Option<Self> {
        let directory = env::temp_dir();
        let text = file::unnamed(&directory).ok()?.0;
        let is_beside = text.metadata().ok()?.dev() == of.metadata().ok()?.dev();
        let due = start_of(blocks) + reserve;
        let is_short = is_beside && sys::room(&directory).is_some_and(|room| room.bytes < due);
        (!is_short).then_some(OwnList {
            text,
            is_whole: AtomicBool::new(true),
        })
    }

    /// Writes the lines of the block `first` and of the blocks after it.
    pub fn write(&self, first: u64, hashes: &[Hash]) {
        let mut lines = Vec::with_capacity(hashes.len() * LINE);
        for hash in hashes {
            push_line(&mut lines, hash);
        }
        let written = self.text.write_all_at(&lines, start_of(first));
        self.is_whole.fetch_and(written.is_ok(), Relaxed);
    }

    /// Whether each write succeeded: `$TMPDIR` had room for the list.
    pub fn is_whole(&self) -> bool {
        self.is_whole.load(Relaxed)
    }

    /// Whether the block of this number has the hash `hash`.
    pub fn has(&self, number: u64, hash: &Hash) -> bool {
        let mut line = [0; HEX_LEN];
        self.read(&mut line, start_of(number)) && line == hash.to_hex()
    }

    /// Fills `buffer` with the text from the byte `offset` on. False where the list is shorter.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> bool {
        file::read_at(&self.text, buffer, offset) == buffer.len()
    }

    /// A reader of all lines. It fails where the line of an unreadable block is missing.
    pub fn lines(&self) -> Reader<BufReader<&File>> {
        let _ = (&self.text).rewind();
        Reader::new(BufReader::new(&self.text), String::new())
    }
}

/// Where the line of this block begins, in bytes.
fn start_of(number: u64) -> u64 {
    number * LINE as u64
}
