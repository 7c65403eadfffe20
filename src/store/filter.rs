//! A set of hashes in little memory: it may hold too much, never too little.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::hash::Hash;

/// Bits of the filter, a power of two: 1 MiB. With 65,536 blocks (256 MiB) one answer in 4,000 is a wrong
/// yes, with a million one in 20.
const BITS: u32 = 1 << 23;

/// A Bloom filter, shared by threads.
pub struct Filter(Vec<AtomicU32>);

impl Filter {
    pub fn new() -> Self {
        Filter((0..BITS / u32::BITS).map(|_| AtomicU32::new(0)).collect())
    }

    pub fn add(&self, hash: &Hash) {
        for (word, bit) in places(hash) {
            self.0[word].fetch_or(bit, Relaxed);
        }
    }

    pub fn may_hold(&self, hash: &Hash) -> bool {
        places(hash)
            .iter()
            .all(|&(word, bit)| self.0[word].load(Relaxed) & bit != 0)
    }
}

/// The bits of a hash, as word and bit. A hash is as good as random, so its own bits are the places.
fn places(hash: &Hash) -> [(usize, u32); 2] {
    let [first, second, ..] = hash.words();
    [first, second].map(|word| {
        let bit = word % BITS;
        ((bit / u32::BITS) as usize, 1 << (bit % u32::BITS))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denies_nothing_that_was_added_and_most_that_was_not() {
        let filter = Filter::new();
        let hash = |n: u32| Hash::of(&n.to_le_bytes());
        (0..10_000).for_each(|n| filter.add(&hash(n)));
        assert!((0..10_000).all(|n| filter.may_hold(&hash(n))));
        let wrong = (10_000..20_000)
            .filter(|&n| filter.may_hold(&hash(n)))
            .count();
        assert!(wrong < 10, "{wrong}");
    }
}
