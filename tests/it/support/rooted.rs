//! Roots worked out a second time, without psync: the lists above a file, and the text over them.

use std::ops::Range;

use super::{BLOCK_SIZE, BlockMap, block_map, blocks, hash_hex, hashlist};

/// Hashes in a root block, at most.
const MOST: usize = 60;

/// A file, its lists, and its root.
#[derive(Debug)]
pub struct Rooted {
    /// The file, its hashlist, the hashlist of that, and so on.
    pub levels: Vec<Vec<u8>>,
    /// The root block.
    pub text: String,
    pub root: String,
}

impl Rooted {
    pub fn new(bytes: &[u8]) -> Self {
        let (size, mut levels) = (bytes.len(), vec![bytes.to_vec()]);
        while blocks(&levels[levels.len() - 1]).len() > MOST {
            levels.push(hashlist(&levels[levels.len() - 1]).into_bytes());
        }
        Self::over(size, levels)
    }

    /// A root of these levels, be they right or not.
    pub fn over(size: usize, levels: Vec<Vec<u8>>) -> Self {
        let (depth, top) = (levels.len() - 1, &levels[levels.len() - 1]);
        let text = format!(
            "psync root 1\nsize {size}\ndepth {depth}\n{}",
            hashlist(top)
        );
        let root = hash_hex(text.as_bytes());
        Self { levels, text, root }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.levels[0]
    }

    /// Its line, as `export --root` prints it.
    pub fn line(&self) -> String {
        format!("{}\n", self.root)
    }

    /// All blocks of it: of the file, of the lists, and the root block.
    pub fn map(&self) -> BlockMap {
        let mut map = block_map(self.bytes());
        map.extend(self.above());
        map
    }

    /// Those that are none of the file.
    pub fn above(&self) -> BlockMap {
        let mut map = self.lists();
        map.insert(self.root.clone(), self.text.clone().into_bytes());
        map
    }

    pub fn lists(&self) -> BlockMap {
        self.levels[1..]
            .iter()
            .flat_map(|text| block_map(text))
            .collect()
    }

    /// The hash of the nth block of a level, from 0.
    pub fn hash(&self, level: usize, n: usize) -> String {
        hash_hex(blocks(&self.levels[level]).nth(n).unwrap())
    }

    /// The blocks of the level below that the nth of a list has the hashes of, in part too.
    pub fn below(n: usize) -> Range<usize> {
        n * BLOCK_SIZE / 65..((n + 1) * BLOCK_SIZE).div_ceil(65)
    }
}
