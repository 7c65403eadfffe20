//! The frames of the answer to `POST /blocks`, put together where they are sent from: a write
//! brings many blocks, and no block is copied. Touches no socket and no file itself.

use std::io;
use std::iter::Peekable;

use super::http;
use crate::block::{BLOCK_SIZE, READ_SIZE};
use crate::hash::Hash;

/// Room before the frames for the head of the answer and of the chunk.
pub const HEAD_ROOM: usize = 512;

/// Bytes of a frame before its block: the block's length, big-endian.
const LENGTH: usize = 2;

/// Room behind the frames. The byte that a file has more than a block fits in as well.
const TAIL_ROOM: usize = 8;

/// Bytes of a buffer for frames of so many whole blocks.
pub const fn buffer_size(blocks: usize) -> usize {
    HEAD_ROOM + blocks * (LENGTH + BLOCK_SIZE) + TAIL_ROOM
}

/// Frames in a buffer.
pub struct Frames<'b> {
    buffer: &'b mut [u8],
    end: usize,
}

impl<'b> Frames<'b> {
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Frames {
            buffer,
            end: HEAD_ROOM,
        }
    }

    /// Bytes of all frames.
    pub fn len(&self) -> usize {
        self.end - HEAD_ROOM
    }

    /// Appends the frames of the next of `hashes`, as many as there is room for. `read` brings a
    /// block and tells its length, or none.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn fill<'h>(
        &mut self,
        hashes: &mut Peekable<impl Iterator<Item = &'h Hash>>,
        mut read: impl FnMut(&Hash, &mut [u8; READ_SIZE]) -> io::Result<Option<usize>>,
    ) -> io::Result<()> {
        while self.buffer.len() >= self.end + LENGTH + BLOCK_SIZE + TAIL_ROOM {
            let (head, rest) = self.buffer[self.end..].split_at_mut(LENGTH);
            let (Some(room), Some(hash)) = (rest.first_chunk_mut(), hashes.next()) else {
                break;
            };
            let length = read(hash, room)?.unwrap_or(0);
            // A block's length fits.
            head.copy_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
            self.end += LENGTH + length;
        }
        Ok(())
    }

    /// What is to be sent: the `head` of the answer, if this is its beginning, the frames, and its
    /// end after the `last`.
    pub fn finish(self, head: &mut Vec<u8>, chunked: bool, last: bool) -> &'b [u8] {
        let length = self.len();
        let mut end = self.end;
        if chunked {
            http::push_chunk_start(head, length);
            let tail = http::chunk_end(length, last);
            self.buffer[end..end + tail.len()].copy_from_slice(tail);
            end += tail.len();
        }
        let start = HEAD_ROOM - head.len();
        self.buffer[start..HEAD_ROOM].copy_from_slice(head);
        &self.buffer[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills `buffer` with blocks of these lengths, as far as there is room; tells how many are
    /// left.
    fn fill<'b>(buffer: &'b mut [u8], lengths: &[usize]) -> (Frames<'b>, usize) {
        let hashes = vec![Hash::of(b""); lengths.len()];
        let (mut hashes, mut lengths) = (hashes.iter().peekable(), lengths.iter());
        let mut frames = Frames::new(buffer);
        let read = |_: &Hash, room: &mut [u8; READ_SIZE]| {
            let length = lengths.next().copied();
            room[..length.unwrap_or(0)].fill(b'x');
            Ok(length.filter(|&length| length > 0))
        };
        frames.fill(&mut hashes, read).unwrap();
        (frames, hashes.count())
    }

    #[test]
    fn frames_follow_the_head_and_one_another() {
        let mut buffer = vec![0; buffer_size(3)];
        let head = || b"HEAD".to_vec();
        let (frames, _) = fill(&mut buffer, &[3, 0, 1]);
        let sent = frames.finish(&mut head(), true, false);
        assert_eq!(sent, b"HEADa\r\n\0\x03xxx\0\0\0\x01x\r\n");
        let (frames, _) = fill(&mut buffer, &[1]);
        let sent = frames.finish(&mut Vec::new(), true, true);
        assert_eq!(sent, b"3\r\n\0\x01x\r\n0\r\n\r\n");
        let none = Frames::new(&mut buffer).finish(&mut head(), true, true);
        assert_eq!(none, b"HEAD0\r\n\r\n");
        let (frames, _) = fill(&mut buffer, &[1, 0]);
        let plain = frames.finish(&mut head(), false, true);
        assert_eq!(plain, b"HEAD\0\x01x\0\0");
    }

    #[test]
    fn the_last_whole_block_fits_exactly() {
        for blocks in [1, 16] {
            let mut buffer = vec![0; buffer_size(blocks)];
            let (frames, left) = fill(&mut buffer, &vec![BLOCK_SIZE; blocks + 1]);
            assert_eq!((frames.len(), left), (blocks * (LENGTH + BLOCK_SIZE), 1));
            let sent = frames.finish(&mut Vec::new(), true, true);
            assert!(sent.ends_with(b"x\r\n0\r\n\r\n"));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_absent() {
        let (mut buffer, hashes) = (vec![0; buffer_size(1)], [Hash::of(b"")]);
        let mut frames = Frames::new(&mut buffer);
        let failed = |_: &Hash, _: &mut [u8; READ_SIZE]| Err(io::ErrorKind::OutOfMemory.into());
        assert!(frames.fill(&mut hashes.iter().peekable(), failed).is_err());
        assert_eq!(frames.len(), 0);
    }
}
