//! Where in a file a block lies, by its hash: for seeds, and for files that are served whole.
//!
//! An index takes 10 bytes a block, 2.5 MiB for a GiB. Several threads fill it while others already look
//! things up in it, without a lock. It is only a hint: a look-up reads the block again and hashes it, so
//! neither a file that changes nor an index that is stale or half written does harm.
//!
//! This file owns the table and the threads that fill it. It does not open the file.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::thread;

use crate::block::{self, BLOCK_SIZE, Slot};
use crate::file::read_at;
use crate::hash::Hash;

/// Blocks read at once: long reads spare a disk its seeks.
const PIECE: usize = 64;

/// Threads that read and hash one file. More of them would all wait for the disk.
const THREADS: usize = 4;

/// Places that the table keeps of one block, at most. A second one helps if the first is overwritten; more
/// would let the zeros of a sparse file fill the table.
const PLACES: usize = 2;

/// A hash table in which each block stands in the first free cell from its own on. At most four cells of
/// five are filled, so that a look-up of an absent block passes 13, which lie side by side.
pub struct Index {
    /// Blocks of the file.
    blocks: u32,
    table: Vec<Cell>,
}

/// A cell of the table: zeros where it is free. One number is written after the other, which only hides a block for a
/// moment.
#[derive(Default)]
struct Cell {
    /// The block's number, counted from 1.
    number: AtomicU32,
    /// Bits of its hash, other ones than those that give its own cell.
    tag: AtomicU32,
}

impl Index {
    /// For a file of `size` bytes. None where the index does not fit into memory, or the numbers of its
    /// blocks into 32 bits, which they do up to 16 TiB.
    pub fn new(size: u64) -> Option<Self> {
        let cells = usize::try_from(cells(size)).ok()?;
        let blocks = u32::try_from(block::count(size))
            .ok()
            .filter(|&n| n < u32::MAX)?;
        let mut table = Vec::new();
        table.try_reserve_exact(cells).ok()?;
        table.resize_with(cells, Cell::default);
        Some(Index { blocks, table })
    }

    /// Reads `file` and takes all its blocks in. Now and then `on_progress` gets the number of a block
    /// that is read next.
    pub fn read(&self, file: &File, on_progress: &mut dyn FnMut(u64)) {
        let take = |first, hashes: &[Hash]| self.add_all(first, hashes);
        hash_blocks(file, 0..self.blocks.into(), &take, on_progress);
    }

    /// Takes in the block `first` and those after it.
    pub fn add_all(&self, first: u64, hashes: &[Hash]) {
        for (number, hash) in (first..).zip(hashes) {
            self.add(hash, number);
        }
    }

    /// Takes in the block of this number, which is one of the file's.
    pub fn add(&self, hash: &Hash, number: u64) {
        let Some(number) = u32::try_from(number).ok().filter(|&n| n < self.blocks) else {
            return;
        };
        let [home, tag, ..] = hash.words();
        let (number, mut places) = (number + 1, 0);
        for cell in self.from(home) {
            let claim = || cell.number.compare_exchange(0, number, Relaxed, Relaxed);
            if cell.number.load(Relaxed) == 0 && claim().is_ok() {
                cell.tag.store(tag, Relaxed);
                return;
            }
            places += usize::from(cell.tag.load(Relaxed) == tag);
            if places == PLACES {
                return;
            }
        }
    }

    /// Reads the block into `slot` from any place in `file`. False where it has none.
    pub fn find(&self, file: &File, hash: &Hash, slot: &mut Slot) -> bool {
        self.places(hash).any(|number| {
            let room = &mut slot.room()[..BLOCK_SIZE];
            let length = read_at(file, room, block::offset(number));
            slot.accept(length, hash)
        })
    }

    /// Whether the block of this number may have this hash.
    pub fn has(&self, number: u64, hash: &Hash) -> bool {
        self.places(hash).any(|other| other == number)
    }

    /// The numbers of the blocks that may be the one named `hash`.
    fn places(&self, hash: &Hash) -> impl Iterator<Item = u64> {
        let [home, tag, ..] = hash.words();
        let numbered = self
            .from(home)
            .map(|cell| (cell, cell.number.load(Relaxed)));
        let taken = numbered.take_while(|&(_, number)| number > 0);
        let same = taken.filter(move |(cell, _)| cell.tag.load(Relaxed) == tag);
        same.map(|(_, number)| u64::from(number) - 1)
    }

    /// All cells, beginning with a block's own.
    fn from(&self, home: u32) -> impl Iterator<Item = &Cell> {
        let own = (u64::from(home) * self.table.len() as u64) >> u32::BITS;
        let (before, from) = self.table.split_at(usize::try_from(own).unwrap_or(0));
        from.iter().chain(before)
    }
}

/// Reads and hashes the `blocks` of these numbers of `file`, by several threads, and gives their hashes to
/// `take`, with the number of the first. What cannot be read is left out.
pub fn hash_blocks(
    file: &File,
    blocks: Range<u64>,
    take: &(dyn Fn(u64, &[Hash]) + Sync),
    on_progress: &mut dyn FnMut(u64),
) {
    // The number of a piece: not all processors have atomic numbers of 64 bits.
    let next = AtomicUsize::new(0);
    let pieces = (blocks.end - blocks.start).div_ceil(PIECE as u64);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 1..pieces.min(threads.min(THREADS) as u64) {
            // Where no thread is available, the others take longer.
            let help = || hash_pieces(file, &blocks, &next, take, &mut |_| {});
            let _ = thread::Builder::new().spawn_scoped(scope, help);
        }
        hash_pieces(file, &blocks, &next, take, on_progress);
    });
}

/// Takes one piece of the `blocks` after the other, from the `next` on.
fn hash_pieces(
    file: &File,
    blocks: &Range<u64>,
    next: &AtomicUsize,
    take: &(dyn Fn(u64, &[Hash]) + Sync),
    on_progress: &mut dyn FnMut(u64),
) {
    let mut buffer = vec![0; PIECE * BLOCK_SIZE];
    let mut hashes = Vec::with_capacity(PIECE);
    loop {
        let piece = next.fetch_add(1, Relaxed) as u64;
        let (mut number, end) = (blocks.start + piece * PIECE as u64, blocks.end);
        if number >= end {
            return;
        }
        on_progress(number);
        let mut left = usize::try_from(end - number).map_or(PIECE, |left| left.min(PIECE));
        while left > 0 {
            let piece = &mut buffer[..left * BLOCK_SIZE];
            let length = read_at(file, piece, block::offset(number));
            hashes.clear();
            hashes.extend(piece[..length].chunks(BLOCK_SIZE).map(Hash::of));
            take(number, &hashes);
            // The file has shrunk, or a block is unreadable and the next may not be.
            let done = hashes.len().max(1);
            number += done as u64;
            left -= done;
        }
    }
}

/// Cells for the blocks of a file of `size` bytes. One is always free.
fn cells(size: u64) -> u64 {
    block::count(size) + block::count(size) / 4 + 1
}

/// Memory for the index of a file of `size` bytes.
pub fn bytes(size: u64) -> u64 {
    cells(size) * size_of::<Cell>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> Hash {
        Hash::of(&n.to_le_bytes())
    }

    fn numbers(index: &Index, hash: &Hash) -> Vec<u64> {
        index.places(hash).collect()
    }

    #[test]
    fn finds_every_block_and_no_other() {
        for blocks in [0, 1, 2, 5, 10_000] {
            let index = Index::new(u64::from(blocks) * BLOCK_SIZE as u64).unwrap();
            (0..blocks).for_each(|n| index.add(&hash(n), n.into()));
            assert!((0..blocks).all(|n| numbers(&index, &hash(n)) == [u64::from(n)]));
            assert!((blocks..2 * blocks + 9).all(|n| numbers(&index, &hash(n)).is_empty()));
        }
    }

    #[test]
    fn keeps_the_first_two_places_of_a_block() {
        let index = Index::new(100 * BLOCK_SIZE as u64).unwrap();
        (0..99).for_each(|n| index.add(&hash(7), n));
        index.add(&hash(8), 99);
        assert_eq!(numbers(&index, &hash(7)), [0, 1]);
        assert_eq!(numbers(&index, &hash(8)), [99]);
    }

    #[test]
    fn takes_ten_bytes_a_block_and_says_what_is_too_large() {
        assert_eq!(bytes(1 << 30), (10 << 18) + 8);
        assert!(Index::new(u64::MAX).is_none());
        assert!(Index::new(u64::from(u32::MAX) * BLOCK_SIZE as u64).is_none());
    }
}
