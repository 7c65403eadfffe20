//! A connection's output: one buffer that lays out an answer's head, its blocks and the end of a chunk where
//! they are sent from. One write sends many blocks, and none is copied.
//!
//! This file owns the layout of the buffer. It touches no socket and no file itself.

use std::io::{self, Write};
use std::iter::Peekable;

use crate::block::{BLOCK_SIZE, READ_SIZE};
use crate::frames::{self, LENGTH};
use crate::hash::Hash;

/// Room for the head of the answer and of the chunk.
pub const HEAD_ROOM: usize = 512;

/// Room behind the frames. The byte that a file has more than a block fits in as well.
const TAIL_ROOM: usize = 8;

/// Bytes of a buffer for the frames of that many whole blocks.
pub const fn size(blocks: usize) -> usize {
    HEAD_ROOM + blocks * (LENGTH + BLOCK_SIZE) + TAIL_ROOM
}

/// Room for the head, then a block or frames, then the end of a chunk. It has no memory before the first
/// block, so most idle connections cost none.
#[derive(Default)]
pub struct Output {
    buffer: Vec<u8>,
    /// Where the block or the frames end.
    end: usize,
}

impl Output {
    /// Empties it. It then has room for that many blocks, and memory for no more.
    pub fn resize(&mut self, blocks: usize) {
        let size = size(blocks);
        if self.buffer.len() < size {
            // Frees the old buffer first. The system clears the new one faster than a loop.
            self.buffer = Vec::new();
            self.buffer = vec![0; size];
        }
        self.buffer.truncate(size);
        self.buffer.shrink_to(size);
        self.clear();
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.end = HEAD_ROOM;
    }

    /// Bytes of the block or the frames.
    pub fn len(&self) -> usize {
        self.end - HEAD_ROOM
    }

    /// Makes `read` read a block. Returns what `read` does: the block's length, or none where it is absent.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_block(
        &mut self,
        read: impl FnOnce(&mut [u8; READ_SIZE]) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        let Some(room) = self.buffer[HEAD_ROOM..].first_chunk_mut() else {
            return Ok(None);
        };
        let length = read(room)?;
        self.end = HEAD_ROOM + length.unwrap_or(0);
        Ok(length)
    }

    /// Appends the frames of the next of `hashes`, as many as fit. `read` reads a block and returns its
    /// length, or none where it is absent.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_frames(
        &mut self,
        hashes: &mut Peekable<impl Iterator<Item = Hash>>,
        mut read: impl FnMut(&Hash, &mut [u8; READ_SIZE]) -> io::Result<Option<usize>>,
    ) -> io::Result<()> {
        while self.buffer.len() >= self.end + LENGTH + BLOCK_SIZE + TAIL_ROOM {
            let (head, rest) = self.buffer[self.end..].split_at_mut(LENGTH);
            let (Some(room), Some(hash)) = (rest.first_chunk_mut(), hashes.next()) else {
                break;
            };
            let length = read(&hash, room)?.unwrap_or(0);
            head.copy_from_slice(&frames::encode_length(length));
            self.end += LENGTH + length;
        }
        Ok(())
    }

    /// The bytes to send: `head`, then the block or the frames.
    pub fn with_head(&mut self, head: &[u8]) -> &[u8] {
        let start = HEAD_ROOM - head.len();
        self.buffer[start..HEAD_ROOM].copy_from_slice(head);
        &self.buffer[start..self.end]
    }

    /// The same as a chunk (RFC 9112, section 7.1), whose size line `head` gets. The `last` ends the answer;
    /// it alone may be empty.
    pub fn with_head_in_chunk(&mut self, head: &mut Vec<u8>, last: bool) -> &[u8] {
        let length = self.len();
        // Writing to memory does not fail.
        let _ = write!(head, "{length:x}\r\n");
        let ends_a_chunk_and_all = last && length > 0;
        let tail: &[u8] = if ends_a_chunk_and_all {
            b"\r\n0\r\n\r\n"
        } else {
            b"\r\n"
        };
        self.buffer[self.end..self.end + tail.len()].copy_from_slice(tail);
        self.end += tail.len();
        self.with_head(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output with room for so many blocks, filled with blocks of these lengths as far as there is
    /// room; tells how many are left.
    fn fill(blocks: usize, lengths: &[usize]) -> (Output, usize) {
        let hashes = vec![Hash::of(b""); lengths.len()];
        let (mut hashes, mut lengths) = (hashes.into_iter().peekable(), lengths.iter());
        let mut output = Output::default();
        output.resize(blocks);
        let read = |_: &Hash, room: &mut [u8; READ_SIZE]| {
            let length = lengths.next().copied();
            room[..length.unwrap_or(0)].fill(b'x');
            Ok(length.filter(|&length| length > 0))
        };
        output.read_frames(&mut hashes, read).unwrap();
        (output, hashes.count())
    }

    #[test]
    fn frames_follow_the_head_and_one_another() {
        let head = || b"HEAD".to_vec();
        let (mut output, _) = fill(3, &[3, 0, 1]);
        assert_eq!(output.len(), 10);
        let sent = output.with_head_in_chunk(&mut head(), false);
        assert_eq!(sent, b"HEADa\r\n\0\x03xxx\0\0\0\x01x\r\n");
        let (mut output, _) = fill(3, &[1]);
        let sent = output.with_head_in_chunk(&mut Vec::new(), true);
        assert_eq!(sent, b"3\r\n\0\x01x\r\n0\r\n\r\n");
        output.clear();
        let none = output.with_head_in_chunk(&mut head(), true);
        assert_eq!(none, b"HEAD0\r\n\r\n");
        let (mut output, _) = fill(3, &[1, 0]);
        assert_eq!(output.with_head(b"HEAD"), b"HEAD\0\x01x\0\0");
    }

    #[test]
    fn a_block_follows_the_head() {
        let mut output = Output::default();
        output.resize(1);
        let read = output.read_block(|room| {
            room[..3].fill(b'x');
            Ok(Some(3))
        });
        assert_eq!(read.unwrap(), Some(3));
        assert_eq!(output.with_head(b"HEAD"), b"HEADxxx");
        assert_eq!(output.read_block(|_| Ok(None)).unwrap(), None);
        assert_eq!(output.with_head(b"HEAD"), b"HEAD");
    }

    #[test]
    fn the_last_whole_block_fits_exactly() {
        for blocks in [1, 16] {
            let (mut output, left) = fill(blocks, &vec![BLOCK_SIZE; blocks + 1]);
            assert_eq!((output.len(), left), (blocks * (LENGTH + BLOCK_SIZE), 1));
            let sent = output.with_head_in_chunk(&mut Vec::new(), true);
            assert!(sent.ends_with(b"x\r\n0\r\n\r\n"));
        }
    }

    #[test]
    fn a_failed_read_is_no_absent_block() {
        let (mut output, hashes) = (Output::default(), [Hash::of(b"")]);
        output.resize(1);
        let failed = |_: &Hash, _: &mut [u8; READ_SIZE]| Err(io::ErrorKind::OutOfMemory.into());
        let read = output.read_frames(&mut hashes.into_iter().peekable(), failed);
        assert!(read.is_err());
        assert_eq!(output.len(), 0);
    }

    #[test]
    fn gives_its_memory_back() {
        let mut output = Output::default();
        assert_eq!(output.buffer.capacity(), 0);
        output.resize(16);
        output.resize(1);
        assert_eq!(output.buffer.capacity(), size(1));
    }
}
