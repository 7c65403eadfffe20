//! Where in a file a block lies, by its hash: for seeds, and for files that are served whole.
//!
//! An index takes 10 bytes a block, 2.5 MiB for a GiB, and is filled by several threads while
//! others already look things up in it, without a lock. It is only a hint: what is found by it is
//! read again and hashed, so a file that changes is never believed, and neither is an index that
//! is out of date or half written.

use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use crate::block::{self, BLOCK_SIZE, Slot};
use crate::file::read_at;
use crate::hash::Hash;

/// Blocks read at once: long reads spare a disk its seeks.
const PIECE: u32 = 64;

/// Threads that read and hash one file. With more the disk is what all wait for.
const THREADS: usize = 4;

/// Places that are kept of a block that a file holds more than once: if one is overwritten there
/// is another, and the zeros of a sparse file do not fill the table.
const PLACES: usize = 2;

/// A hash table in which each block stands at the first free slot from its own on. Of five slots
/// four are filled at most, so that a look for a block that is not there passes 13, which lie side
/// by side.
pub struct Index {
    /// Of the file.
    blocks: u32,
    table: Vec<Entry>,
}

/// Zeros where it is free. The two are not written at once, which only hides a block for a moment.
struct Entry {
    /// The block's number, counted from 1.
    number: AtomicU32,
    /// Bits of its hash, others than those that say where it stands.
    tag: AtomicU32,
}

impl Index {
    /// For a file of so many bytes. None where the index does not fit into memory, nor the
    /// numbers of its blocks into 32 bits, which they do up to 16 TiB.
    pub fn new(size: u64) -> Option<Self> {
        let slots = usize::try_from(slots(size)).ok()?;
        let blocks = u32::try_from(block::count(size))
            .ok()
            .filter(|&n| n < u32::MAX)?;
        let mut table = Vec::new();
        table.try_reserve_exact(slots).ok()?;
        table.resize_with(slots, || Entry {
            number: AtomicU32::new(0),
            tag: AtomicU32::new(0),
        });
        Some(Index { blocks, table })
    }

    /// Reads `file` and takes all its blocks in. What cannot be read is left out. Now and then
    /// `tell` is told how many blocks are done.
    pub fn read(&self, file: &File, tell: &mut dyn FnMut(u32)) {
        let next = AtomicU32::new(0);
        let pieces = self.blocks.div_ceil(PIECE) as usize;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 1..threads.min(THREADS).min(pieces) {
                // Where there is no thread to be had, the others take longer.
                let help = || self.read_pieces(file, &next, &mut |_| {});
                let _ = thread::Builder::new().spawn_scoped(scope, help);
            }
            self.read_pieces(file, &next, tell);
        });
    }

    /// Reads pieces until none is left.
    fn read_pieces(&self, file: &File, next: &AtomicU32, tell: &mut dyn FnMut(u32)) {
        let mut buffer = vec![0; PIECE as usize * BLOCK_SIZE];
        loop {
            let piece = next.fetch_add(1, Relaxed);
            let Some(mut number) = piece.checked_mul(PIECE).filter(|&n| n < self.blocks) else {
                return;
            };
            tell(number);
            let end = self.blocks.min(number.saturating_add(PIECE));
            while number < end {
                let wanted = &mut buffer[..(end - number) as usize * BLOCK_SIZE];
                let length = read_at(file, wanted, block::offset(number.into()));
                for bytes in buffer[..length].chunks(BLOCK_SIZE) {
                    self.add(&Hash::of(bytes), number);
                    number += 1;
                }
                if length == 0 {
                    // It has become shorter, or cannot be read here; perhaps behind it.
                    number += 1;
                }
            }
        }
    }

    fn add(&self, hash: &Hash, number: u32) {
        let [home, tag, ..] = hash.words();
        let (number, mut places) = (number + 1, 0);
        for slot in self.from(home) {
            let claim = || slot.number.compare_exchange(0, number, Relaxed, Relaxed);
            if slot.number.load(Relaxed) == 0 && claim().is_ok() {
                slot.tag.store(tag, Relaxed);
                return;
            }
            places += usize::from(slot.tag.load(Relaxed) == tag);
            if places == PLACES {
                return;
            }
        }
    }

    /// Reads the block into `slot`, wherever it lies in `file`. False where it lies nowhere.
    pub fn find(&self, file: &File, hash: &Hash, slot: &mut Slot) -> bool {
        let [home, tag, ..] = hash.words();
        let numbers = self.from(home).map(|entry| {
            let number = entry.number.load(Relaxed);
            (number, entry.tag.load(Relaxed) == tag)
        });
        let mut places = numbers
            .take_while(|&(number, _)| number > 0)
            .filter(|&(_, is_same)| is_same);
        places.any(|(number, _)| {
            let room = &mut slot.room()[..BLOCK_SIZE];
            let length = read_at(file, room, block::offset((number - 1).into()));
            slot.accept(length, hash)
        })
    }

    /// All slots, beginning with the one that is a block's own.
    fn from(&self, home: u32) -> impl Iterator<Item = &Entry> {
        let own = (u64::from(home) * self.table.len() as u64) >> u32::BITS;
        let (before, from) = self.table.split_at(usize::try_from(own).unwrap_or(0));
        from.iter().chain(before)
    }
}

/// Slots for the blocks of a file of so many bytes. One is always free.
fn slots(size: u64) -> u64 {
    block::count(size) + block::count(size) / 4 + 1
}

/// Memory for the index of a file of so many bytes.
pub fn bytes(size: u64) -> u64 {
    slots(size) * size_of::<Entry>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> Hash {
        Hash::of(&n.to_le_bytes())
    }

    /// The numbers that are found for a hash.
    fn numbers(index: &Index, hash: &Hash) -> Vec<u32> {
        let [home, tag, ..] = hash.words();
        let slots = index.from(home);
        let taken = slots.take_while(|slot| slot.number.load(Relaxed) > 0);
        let same = taken.filter(|slot| slot.tag.load(Relaxed) == tag);
        same.map(|slot| slot.number.load(Relaxed) - 1).collect()
    }

    #[test]
    fn finds_every_block_and_no_other() {
        for blocks in [0, 1, 2, 5, 10_000] {
            let index = Index::new(u64::from(blocks) * BLOCK_SIZE as u64).unwrap();
            (0..blocks).for_each(|n| index.add(&hash(n), n));
            assert!((0..blocks).all(|n| numbers(&index, &hash(n)) == [n]));
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
