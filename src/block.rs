//! Blocks: the unit in which everything is stored, sent and believed.
//!
//! A [`Block`] exists only with the hash of its own bytes, so code that takes a `Block` gets verified
//! bytes. This file touches no file, socket or directory itself.

use std::io::{self, Read};
use std::mem;

use crate::hash::Hash;

/// Bytes of every block of a file but the last, which holds the rest.
pub const BLOCK_SIZE: usize = 4096;

/// Room to read a block: the byte more shows that the input is longer than a block.
pub const READ_SIZE: usize = BLOCK_SIZE + 1;

/// Blocks of a file with this number of bytes.
pub fn count(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_SIZE as u64)
}

/// Where in its file the block of this number, counted from 0, begins, in bytes.
pub fn offset(number: u64) -> u64 {
    number * BLOCK_SIZE as u64
}

/// Bytes of the block of this number in a file of this size.
pub fn length(number: u64, size: u64) -> usize {
    let left = size.saturating_sub(offset(number));
    usize::try_from(left).map_or(BLOCK_SIZE, |left| left.min(BLOCK_SIZE))
}

/// 1 to [`BLOCK_SIZE`] bytes together with their hash.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    hash: Hash,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// The block of 1 to [`BLOCK_SIZE`] bytes.
    pub fn of(bytes: &'a [u8]) -> Self {
        debug_assert!((1..=BLOCK_SIZE).contains(&bytes.len()));
        Block {
            hash: Hash::of(bytes),
            bytes,
        }
    }

    /// Takes `bytes` only if they are the block named `hash`. Only here, bytes that came from elsewhere
    /// become a block.
    pub fn verify(bytes: &'a [u8], hash: &Hash) -> Option<Self> {
        let is_it = (1..=BLOCK_SIZE).contains(&bytes.len()) && Hash::of(bytes) == *hash;
        is_it.then_some(Block { hash: *hash, bytes })
    }

    pub fn hash(&self) -> Hash {
        self.hash
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Room for one block: bytes are read into it and verified in place. `Sink` in `get` tells all steps.
pub struct Slot<'a> {
    room: &'a mut [u8; READ_SIZE],
    verified: &'a mut Verified,
}

/// The hash and the length of the block in a slot, once there is one. It outlives the slot, and only a slot
/// sets it.
#[derive(Default)]
pub struct Verified(Option<(Hash, usize)>);

impl<'a> Slot<'a> {
    pub fn over(room: &'a mut [u8; READ_SIZE], verified: &'a mut Verified) -> Self {
        *verified = Verified::default();
        Slot { room, verified }
    }

    /// The room, to read into. The slot loses its block.
    pub fn room(&mut self) -> &mut [u8; READ_SIZE] {
        *self.verified = Verified::default();
        self.room
    }

    /// Whether the first `length` bytes are the block named `hash`, which the slot then holds.
    pub fn accept(&mut self, length: usize, hash: &Hash) -> bool {
        let block = Block::verify(&self.room[..length], hash);
        *self.verified = Verified(block.map(|block| (block.hash, length)));
        self.length().is_some()
    }

    /// Bytes of the block that the slot holds.
    pub fn length(&self) -> Option<usize> {
        self.verified.0.map(|(_, length)| length)
    }

    /// Reads the block named `hash` from `input`. False if `input` is anything else. The first call mostly
    /// brings the whole block; only if its bytes are not the block, there is another one.
    ///
    /// # Errors
    /// Those of `input`.
    pub fn read(&mut self, input: &mut impl Read, hash: &Hash) -> io::Result<bool> {
        let mut filled = 0;
        loop {
            let more = read_some(input, &mut self.room()[filled..])?;
            filled += more;
            if more == 0 || filled > BLOCK_SIZE {
                return Ok(false);
            }
            if self.accept(filled, hash) {
                return Ok(true);
            }
        }
    }
}

/// The room of a slot, used for one block after the other.
pub struct Buffer {
    room: Box<[u8; READ_SIZE]>,
    verified: Verified,
}

impl Buffer {
    pub fn new() -> Self {
        Buffer {
            room: Box::new([0; READ_SIZE]),
            verified: Verified::default(),
        }
    }

    pub fn slot(&mut self) -> Slot<'_> {
        Slot::over(&mut self.room, &mut self.verified)
    }
}

/// Verified blocks one after the other, without gaps, for one write.
#[derive(Default)]
pub struct Row {
    buffer: Vec<u8>,
    /// Bytes of blocks; after them begins the slot of the next.
    filled: usize,
    verified: Verified,
}

impl Row {
    /// Has room for this number of blocks, and for one at least.
    pub fn new(blocks: usize) -> Self {
        Row {
            buffer: vec![0; blocks.saturating_sub(1) * BLOCK_SIZE + READ_SIZE],
            ..Row::default()
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Blocks that fit into it when it is empty.
    pub fn room(&self) -> usize {
        self.buffer.len() / BLOCK_SIZE
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.filled = 0;
        self.verified = Verified::default();
    }

    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.filled < READ_SIZE
    }

    /// Room for the next block. A slot that held none leaves the row as it was. None if the row is full.
    pub fn slot(&mut self) -> Option<Slot<'_>> {
        let room = self.buffer[self.filled..].first_chunk_mut()?;
        Some(Slot::over(room, &mut self.verified))
    }

    /// Takes in the block that the last slot held, if it held one.
    pub fn commit(&mut self) -> Option<Block<'_>> {
        let (hash, length) = mem::take(&mut self.verified).0?;
        let start = self.filled;
        self.filled += length;
        let bytes = &self.buffer[start..self.filled];
        Some(Block { hash, bytes })
    }

    /// Takes the blocks out, in at most twice the memory of their bytes. The row keeps its buffer if they
    /// fill at most half of it.
    pub fn take(&mut self) -> Self {
        let taken = if self.filled > self.buffer.len() / 2 {
            mem::take(self)
        } else {
            let buffer = self.bytes().to_vec();
            Row {
                filled: buffer.len(),
                buffer,
                ..Row::default()
            }
        };
        self.clear();
        taken
    }
}

/// Reads once, and again after an interruption by a signal.
pub fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Reads until `buffer` is full or the input ends; returns the bytes read.
///
/// # Errors
/// Those of `input`, without interruptions.
pub fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_some(input, &mut buffer[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_bytes_are_the_block() {
        let hash = Hash::of(b"one");
        assert_eq!(Block::verify(b"one", &hash).map(|b| b.hash()), Some(hash));
        assert!(Block::verify(b"two", &hash).is_none());
        assert!(Block::verify(b"", &Hash::of(b"")).is_none());
        let long = [0; READ_SIZE];
        assert!(Block::verify(&long, &Hash::of(&long)).is_none());
        let full = [0; BLOCK_SIZE];
        assert!(Block::verify(&full, &Hash::of(&full)).is_some());
    }

    /// Gives one byte a call, with an interruption before each, as a slow pipe may.
    struct Dribble<'a>(&'a [u8], bool);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = buffer.len().min(1);
            self.0.read(&mut buffer[..n])
        }
    }

    #[test]
    fn a_short_read_is_not_the_end() {
        let mut buffer = [0; 4];
        let mut input = Dribble(b"123456", false);
        assert_eq!(fill(&mut input, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"1234");
        assert_eq!(fill(&mut input, &mut buffer).unwrap(), 2);
        assert_eq!(fill(&mut input, &mut buffer).unwrap(), 0);
        let mut buffer = Buffer::new();
        let mut input = Dribble(b"123", false);
        assert!(buffer.slot().read(&mut input, &Hash::of(b"123")).unwrap());
    }

    #[test]
    fn reads_the_named_block_and_no_other() {
        let mut buffer = Buffer::new();
        let mut read = |mut content: &[u8], hash: &Hash| {
            let mut slot = buffer.slot();
            let is_it = slot.read(&mut content, hash).unwrap();
            assert_eq!(slot.length().is_some(), is_it);
            slot.length()
        };
        let long = [7; READ_SIZE];
        for (content, length) in [
            (&b"ab"[..], Some(2)),
            (b"a", None),
            (b"", None),
            (b"abc", None),
            (&long, None),
        ] {
            assert_eq!(read(content, &Hash::of(b"ab")), length);
        }
        let beginning = Hash::of(&long[..BLOCK_SIZE]);
        assert!(
            read(&long, &beginning).is_none(),
            "a file that begins with the block is not it"
        );
        for (length, is) in [(BLOCK_SIZE, true), (BLOCK_SIZE + 1, false)] {
            let content = &long[..length];
            let found = read(content, &Hash::of(content));
            assert_eq!(found.is_some(), is, "{length} bytes under their own hash");
        }
    }

    #[test]
    fn a_slot_that_is_read_into_holds_no_block() {
        let mut buffer = Buffer::new();
        let mut slot = buffer.slot();
        slot.room()[..3].copy_from_slice(b"one");
        assert!(!slot.accept(2, &Hash::of(b"one")));
        assert!(slot.accept(3, &Hash::of(b"one")) && slot.length() == Some(3));
        assert!(!slot.accept(3, &Hash::of(b"two")) && slot.length().is_none());
        assert!(slot.accept(3, &Hash::of(b"one")));
        slot.room();
        assert!(slot.length().is_none());
        assert!(slot.accept(3, &Hash::of(b"one")));
        assert!(buffer.slot().length().is_none());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let refusal = read_some(&mut Broken, &mut [0]).unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::BrokenPipe);
    }

    /// Puts `block` into `row`; false where there is no room.
    fn push(row: &mut Row, block: &[u8]) -> bool {
        let hash = Hash::of(block);
        let Some(mut slot) = row.slot() else {
            return false;
        };
        slot.room()[..block.len()].copy_from_slice(block);
        assert!(slot.accept(block.len(), &hash));
        let taken = row.commit().unwrap();
        assert!(taken.bytes() == block && taken.hash() == hash);
        true
    }

    #[test]
    fn a_row_takes_blocks_until_it_is_full() {
        let (full, mut row) = ([7; BLOCK_SIZE], Row::new(3));
        for _ in 0..2 {
            for block in [&full[..], b"ab", &full] {
                assert!(!row.is_full());
                assert!(push(&mut row, block));
            }
            assert!(row.is_full() && !push(&mut row, b"c"));
            assert_eq!(row.bytes(), [&full[..], b"ab", &full].concat());
            row.clear();
            assert_eq!((row.bytes(), row.room()), (&b""[..], 3));
        }
        let mut row = Row::new(2);
        assert!(push(&mut row, &full) && !row.is_full() && push(&mut row, &full));
        assert_eq!([0, 1, 2].map(|blocks| Row::new(blocks).room()), [1, 1, 2]);
        assert!(Row::default().is_full());
    }

    #[test]
    fn a_row_takes_nothing_but_what_its_slot_holds() {
        let mut row = Row::new(2);
        assert!(row.commit().is_none());
        row.slot().unwrap().room()[..2].copy_from_slice(b"ab");
        assert!(row.commit().is_none());
        assert!(row.slot().unwrap().accept(2, &Hash::of(b"ab")));
        assert!(row.commit().is_some() && row.commit().is_none());
        assert_eq!(row.bytes(), b"ab");
    }

    #[test]
    fn a_row_gives_away_its_memory_only_where_much_of_it_is_used() {
        let mut row = Row::new(2);
        assert!(push(&mut row, b"ab"));
        assert_eq!(row.take().bytes(), b"ab");
        assert_eq!((row.bytes(), row.room()), (&b""[..], 2));
        let full = [7; BLOCK_SIZE];
        assert!(push(&mut row, &full) && push(&mut row, b"ab"));
        assert_eq!(row.take().bytes(), [&full[..], b"ab"].concat());
        assert_eq!((row.bytes(), row.room()), (&b""[..], 0));
    }
}
