//! A connection's output: one buffer that lays out an answer's head, its blocks and the end of a chunk where
//! they are sent from. One write sends many blocks, and none is copied.
//!
//! This file owns the layout of the buffer. It touches no socket and no file itself.

use std::io::Write;

use crate::block::{BLOCK_SIZE, READ_SIZE};
use crate::frames::LENGTH;

/// Room for the head of the answer and of the chunk.
pub const HEAD_ROOM: usize = 512;

/// Room behind the frames for the end of a chunk, or for the byte that shows that a file is longer than a
/// block.
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
    /// Empties it, with room for at least that many blocks.
    pub fn make_room(&mut self, blocks: usize) {
        let size = size(blocks);
        if self.buffer.len() < size {
            // Frees the old buffer first. The system clears the new one faster than a loop.
            self.buffer = Vec::new();
            self.buffer = vec![0; size];
        }
        self.clear();
    }

    /// Empties it, with room for one block at most.
    pub fn shrink(&mut self) {
        self.buffer.truncate(size(1));
        self.buffer.shrink_to(size(1));
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

    /// Room to read a block into, behind a prefix of `prefix` bytes. None where the output is full.
    pub fn room(&mut self, prefix: usize) -> Option<&mut [u8; READ_SIZE]> {
        let rest = self.buffer.get_mut(self.end + prefix..)?;
        let with_tail: &mut [u8; BLOCK_SIZE + TAIL_ROOM] = rest.first_chunk_mut()?;
        with_tail.first_chunk_mut()
    }

    /// Appends `prefix` and the `length` bytes that its room has behind it.
    pub fn push(&mut self, prefix: &[u8], length: usize) {
        let start = self.end + prefix.len();
        self.buffer[self.end..start].copy_from_slice(prefix);
        self.end = start + length;
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
    use crate::frames;

    /// An output with room for `blocks`, filled with frames of these lengths as far as they fit; and how many
    /// do not.
    fn fill(blocks: usize, lengths: &[usize]) -> (Output, usize) {
        let (mut lengths, mut output) = (lengths.iter(), Output::default());
        output.make_room(blocks);
        while let Some(room) = output.room(LENGTH) {
            let Some(&length) = lengths.next() else {
                break;
            };
            room[..length].fill(b'x');
            output.push(&frames::encode_length(length), length);
        }
        (output, lengths.count())
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
        output.make_room(1);
        output.room(0).unwrap()[..3].fill(b'x');
        output.push(b"", 3);
        assert_eq!(output.with_head(b"HEAD"), b"HEADxxx");
        output.clear();
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
    fn gives_its_memory_back() {
        let mut output = Output::default();
        assert_eq!(output.buffer.capacity(), 0);
        output.make_room(16);
        output.shrink();
        assert_eq!(output.buffer.capacity(), size(1));
    }
}
