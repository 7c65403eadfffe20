//! A shuffled order of a list, for boxes that fetch the same file at the same time.
//!
//! Boxes that begin together and ask in the same order all lack the same blocks at the same time, and each
//! fetches its own copy from afar. In an order of its own, each fetches another part, and finds most of
//! the rest at the others. This file owns that order. It reads a list, and opens none.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::hashlist::LINE;
use crate::sys;

/// Lines of a piece, at most: within a piece, a MiB of the file comes in long runs.
const LONGEST: u64 = 256;

/// Pieces of a list, at least, if it has that many lines: eight boxes then seldom work on the same piece.
const PIECES: u64 = 256;

/// Pieces of a list, each once: steps of one length go round and round the list.
#[derive(Clone)]
pub struct Order {
    lines: u64,
    piece: u64,
    step: u64,
    /// The number of the next piece, and the count of pieces left.
    at: u64,
    left: u64,
}

impl Order {
    /// A random order for a list of this number of lines.
    pub fn new(lines: u64) -> Self {
        let piece = (lines / PIECES).clamp(1, LONGEST);
        let pieces = lines.div_ceil(piece);
        let random = || sys::random() % pieces.max(1);
        let mut step = random();
        while gcd(step, pieces) > 1 {
            step += 1;
        }
        Order {
            lines,
            piece,
            step,
            at: random(),
            left: pieces,
        }
    }
}

impl Iterator for Order {
    type Item = Range<u64>;

    /// The lines of the next piece, counted from 0.
    fn next(&mut self) -> Option<Range<u64>> {
        self.left = self.left.checked_sub(1)?;
        let pieces = self.lines.div_ceil(self.piece);
        let first = self.at * self.piece;
        self.at = (self.at + self.step) % pieces;
        Some(first..self.lines.min(first + self.piece))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The text of a list in such an order. Each line is [`LINE`] bytes long.
pub struct Ordered {
    pub file: File,
    pub order: Order,
    /// Bytes of the current piece that are still unread.
    pub piece: Range<u64>,
}

impl Read for Ordered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty()
            && let Some(lines) = self.order.next()
        {
            self.piece = lines.start * LINE as u64..lines.end * LINE as u64;
        }
        let left = usize::try_from(self.piece.end - self.piece.start).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..most], self.piece.start)?;
        self.piece.start += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_turn_once() {
        for lines in [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 70_001] {
            let mut all: Vec<u64> = Order::new(lines).flatten().collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..lines), "{lines}");
        }
    }

    #[test]
    fn no_two_orders_are_the_same() {
        let order = |_| Order::new(10_000).flatten().collect::<Vec<u64>>();
        let orders: Vec<_> = (0..4).map(order).collect();
        assert!((1..4).any(|n| orders[n] != orders[0]));
    }
}
