//! Blocks: the unit in which everything is stored, sent and believed.
//!
//! A [`Block`] exists only with the hash of its own bytes, so whatever takes a `Block` cannot be
//! given bytes that nobody verified. This file touches no file, socket or directory itself.

use std::io::{self, Read};
use std::{mem, ptr};

use crate::hash::Hash;

/// Bytes of every block of a file but the last, which holds what is left.
pub const BLOCK_SIZE: usize = 4096;

/// Room to read a block: a byte more shows that what is there is longer than one.
pub const READ_SIZE: usize = BLOCK_SIZE + 1;

/// Blocks of a file of so many bytes.
pub fn count(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_SIZE as u64)
}

/// Where in its file the block of this number, counted from 0, begins, in bytes.
pub fn offset(number: u64) -> u64 {
    number * BLOCK_SIZE as u64
}

/// 1 to [`BLOCK_SIZE`] bytes together with their hash.
#[derive(Clone, Debug)]
pub struct Block<B> {
    hash: Hash,
    bytes: B,
}

impl<B: AsRef<[u8]>> Block<B> {
    /// Takes `bytes`, of a block's length, as what they are.
    pub fn new(bytes: B) -> Self {
        debug_assert!((1..=BLOCK_SIZE).contains(&bytes.as_ref().len()));
        Block {
            hash: Hash::of(bytes.as_ref()),
            bytes,
        }
    }

    /// Takes `bytes` only if they are the block named `hash`.
    pub fn verify(bytes: B, hash: &Hash) -> Option<Self> {
        if !(1..=BLOCK_SIZE).contains(&bytes.as_ref().len()) || Hash::of(bytes.as_ref()) != *hash {
            return None;
        }
        Some(Block { hash: *hash, bytes })
    }

    pub fn hash(&self) -> Hash {
        self.hash
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<'b> Block<&'b [u8]> {
    /// Reads the block named `hash` out of `input`, whose first call mostly brings all of it: a
    /// second one is made only where what came is not the block. None when `input` is not it.
    ///
    /// # Errors
    /// Whatever `input` returns.
    pub fn read(
        input: &mut impl Read,
        hash: &Hash,
        buffer: &'b mut [u8; READ_SIZE],
    ) -> io::Result<Option<Self>> {
        let mut filled = 0;
        loop {
            let more = read_some(input, &mut buffer[filled..])?;
            filled += more;
            if more == 0 || filled > BLOCK_SIZE {
                return Ok(None);
            }
            if Hash::of(&buffer[..filled]) == *hash {
                return Ok(Some(Block {
                    hash: *hash,
                    bytes: &buffer[..filled],
                }));
            }
        }
    }

    /// Has `read` bring what may be the block named `hash`, until it is, or nothing more comes.
    pub fn first(
        hash: &Hash,
        buffer: &'b mut [u8; READ_SIZE],
        mut read: impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> Option<Self> {
        loop {
            let length = read(&mut buffer[..BLOCK_SIZE])?;
            if length > 0 && Hash::of(&buffer[..length]) == *hash {
                return Some(Block {
                    hash: *hash,
                    bytes: &buffer[..length],
                });
            }
        }
    }
}

/// Verified blocks one after the other, without gaps: they are written at once.
#[derive(Default)]
pub struct Row {
    buffer: Vec<u8>,
    /// Bytes of blocks; those after them are nobody's yet.
    filled: usize,
}

impl Row {
    /// Has room for so many blocks, one at least.
    pub fn new(blocks: usize) -> Self {
        Row {
            buffer: vec![0; blocks.saturating_sub(1) * BLOCK_SIZE + READ_SIZE],
            filled: 0,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Blocks that it has room for when it is empty.
    pub fn room(&self) -> usize {
        self.buffer.len() / BLOCK_SIZE
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.filled < READ_SIZE
    }

    /// Has `read` read a block into its place, and takes it in: what it gives is a block, and so
    /// is verified, and lies at the start of the room that it was given. None where it gives none,
    /// or the row is full.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn push<E>(
        &mut self,
        read: impl FnOnce(&mut [u8; READ_SIZE]) -> Result<Option<Block<&[u8]>>, E>,
    ) -> Result<Option<Block<&[u8]>>, E> {
        let Some(room) = self.buffer[self.filled..].first_chunk_mut() else {
            return Ok(None);
        };
        let place = ptr::from_ref(room).cast();
        let Some(block) = read(room)? else {
            return Ok(None);
        };
        if !ptr::eq(block.bytes().as_ptr(), place) {
            return Ok(None);
        }
        let (hash, start) = (block.hash(), self.filled);
        self.filled += block.bytes().len();
        let bytes = &self.buffer[start..self.filled];
        Ok(Some(Block { hash, bytes }))
    }

    /// Takes the blocks out, in no more memory than twice their bytes. The buffer stays where that
    /// is less than half of it.
    pub fn take(&mut self) -> Self {
        let taken = if self.filled > self.buffer.len() / 2 {
            mem::take(self)
        } else {
            let buffer = self.bytes().to_vec();
            let filled = buffer.len();
            Row { buffer, filled }
        };
        self.filled = 0;
        taken
    }
}

/// One read that no signal interrupts.
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
/// Whatever `input` returns, but for interruptions.
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
        assert!(Block::verify(long, &Hash::of(&long)).is_none());
        let full = [0; BLOCK_SIZE];
        assert!(Block::verify(full, &Hash::of(&full)).is_some());
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
        let whole = Block::read(
            &mut Dribble(b"123", false),
            &Hash::of(b"123"),
            &mut [0; READ_SIZE],
        )
        .map(|b| b.is_some());
        assert!(whole.unwrap());
    }

    #[test]
    fn reads_the_named_block_and_no_other() {
        let mut buffer = [0; READ_SIZE];
        let long = [7; READ_SIZE];
        for (content, is) in [
            (&b"ab"[..], true),
            (b"a", false),
            (b"", false),
            (b"abc", false),
            (&long, false),
        ] {
            let block = Block::read(&mut &content[..], &Hash::of(b"ab"), &mut buffer).unwrap();
            assert_eq!(
                block.map(|b| b.bytes().to_vec()),
                is.then(|| b"ab".to_vec())
            );
        }
        let block =
            Block::read(&mut &long[..], &Hash::of(&long[..BLOCK_SIZE]), &mut buffer).unwrap();
        assert!(
            block.is_none(),
            "a file that begins with the block is not it"
        );
        for (length, is) in [(BLOCK_SIZE, true), (BLOCK_SIZE + 1, false)] {
            let content = &long[..length];
            let block = Block::read(&mut &content[..], &Hash::of(content), &mut buffer).unwrap();
            assert_eq!(block.is_some(), is, "{length} bytes under their own hash");
        }
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

    #[test]
    fn has_the_named_block_brought_until_it_comes() {
        for (named, brought, left) in [
            ("one", &["", "on", "one", "two"][..], Some(1)),
            ("one", &["two"], None),
            ("", &["", ""], None),
        ] {
            let (mut buffer, mut answers) = ([0; READ_SIZE], brought.iter());
            let block = Block::first(&Hash::of(named.as_bytes()), &mut buffer, |room| {
                let bytes = answers.next()?.as_bytes();
                room[..bytes.len()].copy_from_slice(bytes);
                Some(bytes.len())
            });
            let bytes = block.map(|block| block.bytes().to_vec());
            assert_eq!(bytes, left.map(|_| named.as_bytes().to_vec()));
            assert_eq!(answers.len(), left.unwrap_or(0), "is asked no further");
        }
    }

    /// Puts `block` into `row`; false where there is no room.
    fn push(row: &mut Row, block: &[u8]) -> bool {
        let hash = Hash::of(block);
        let pushed = row.push(|room| Block::read(&mut &block[..], &hash, room));
        let pushed = pushed.unwrap();
        assert!(
            pushed
                .iter()
                .all(|pushed| pushed.bytes() == block && pushed.hash() == hash)
        );
        pushed.is_some()
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
    fn a_row_takes_nothing_but_what_was_read_into_it() {
        let mut row = Row::new(1);
        let none = row.push(|_| Ok::<_, ()>(None)).unwrap();
        assert!(none.is_none());
        let elsewhere = row
            .push(|_| Ok::<_, ()>(Some(Block::new(&b"ab"[..]))))
            .unwrap();
        assert!(elsewhere.is_none());
        assert!(row.push(|_| Err(())).is_err());
        assert!(row.bytes().is_empty());
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
