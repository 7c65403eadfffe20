//! The root: one hash that stands for a whole file.
//!
//! It is the hash of a root block, a text that gives the file's size and at most [`MOST`] hashes: of the
//! file's own blocks; or of the blocks of its hashlist, a text cut like any file; or of the blocks of the
//! hashlist of that text, and so on. This file owns the format of the root block, and how many blocks
//! each level has. It opens, stores and fetches nothing.

use crate::block::{self, BLOCK_SIZE, Block};
use crate::error::Result;
use crate::hash::Hash;
use crate::hashlist::{LINE, push_line};

/// Hashes in a root block: with the three lines before them they fit into one block.
const MOST: usize = 60;

/// The content of a root block.
#[derive(Debug, PartialEq)]
pub struct Root {
    /// Bytes of the file.
    pub size: u64,
    /// The hashes of the blocks of the text at [`Root::depth`].
    pub hashes: Vec<Hash>,
}

impl Root {
    /// Parses exactly what [`Root::text`] writes, with as many hashes as the size needs. None for
    /// anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.lines().skip(1);
        let size = lines.next()?.strip_prefix("size ")?.parse().ok()?;
        // The depth follows from the size.
        lines.next()?;
        let hashes: Option<Vec<Hash>> = lines.map(|line| Hash::parse(line.as_bytes())).collect();
        let hashes = hashes?;
        let root = Root { size, hashes };
        let fits = root.hashes.len() as u64 == root.blocks(root.depth());
        (fits && root.text() == text).then_some(root)
    }

    /// The root block.
    pub fn text(&self) -> Vec<u8> {
        let (size, depth) = (self.size, self.depth());
        let mut text = format!("psync root 1\nsize {size}\ndepth {depth}\n").into_bytes();
        for hash in &self.hashes {
            push_line(&mut text, hash);
        }
        text
    }

    /// The level of the text whose blocks have the root's hashes: the least with few enough blocks. 0 is the
    /// file.
    pub fn depth(&self) -> u32 {
        let fits = |level: &u32| self.blocks(*level) <= MOST as u64;
        (0..).find(fits).unwrap_or_default()
    }

    /// Bytes of the text of a level: level 0 is the file, level 1 its hashlist, level 2 the
    /// hashlist of that. A hashlist has 65 bytes for 4096, so this never overflows.
    pub fn bytes(&self, level: u32) -> u64 {
        (0..level).fold(self.size, |bytes, _| block::count(bytes) * LINE as u64)
    }

    pub fn blocks(&self, level: u32) -> u64 {
        block::count(self.bytes(level))
    }

    /// Bytes of the block of this number, counted from 0, of a level.
    pub fn block_length(&self, level: u32, number: u64) -> usize {
        block::length(number, self.bytes(level))
    }
}

/// Takes each block of the hashlist, of the upper lists, and the root block.
pub type Tell<'a> = dyn FnMut(&Block) -> Result<()> + 'a;

/// Makes a root out of the hashes of a level, at first those of the file. Holds at most a block of text a
/// level.
#[derive(Default)]
pub struct Tree {
    /// The hashes, until they are too many for a root block.
    few: Vec<Hash>,
    /// Then their lines that do not yet fill a block.
    text: Option<Vec<u8>>,
    /// The hashes of the blocks of that text.
    above: Option<Box<Tree>>,
}

impl Tree {
    /// Takes in the hash of the level's next block.
    ///
    /// # Errors
    /// Those of `tell`.
    pub fn push(&mut self, hash: Hash, tell: &mut Tell) -> Result<()> {
        if self.text.is_none() && self.few.len() < MOST {
            self.few.push(hash);
            return Ok(());
        }
        let text = self.text.get_or_insert_default();
        for hash in self.few.drain(..) {
            push_line(text, &hash);
        }
        push_line(text, &hash);
        if text.len() < BLOCK_SIZE {
            return Ok(());
        }
        let rest = text.split_off(BLOCK_SIZE);
        let full = std::mem::replace(text, rest);
        self.close(&full, tell)
    }

    fn close(&mut self, text: &[u8], tell: &mut Tell) -> Result<()> {
        let block = Block::of(text);
        tell(&block)?;
        let above = self.above.get_or_insert_default();
        above.push(block.hash(), tell)
    }

    /// The root of a file of `size` bytes, whose last hash was pushed.
    ///
    /// # Errors
    /// Those of `tell`.
    pub fn finish(mut self, size: u64, tell: &mut Tell) -> Result<Hash> {
        if let Some(text) = self.text.take().filter(|text| !text.is_empty()) {
            self.close(&text, tell)?;
        }
        if let Some(above) = self.above {
            return above.finish(size, tell);
        }
        let hashes = self.few;
        let text = Root { size, hashes }.text();
        let block = Block::of(&text);
        tell(&block)?;
        Ok(block.hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn tree(hashes: u64, size: u64) -> (Root, HashMap<String, Vec<u8>>) {
        let mut blocks = HashMap::new();
        let mut tell = |block: &Block| {
            blocks.insert(block.hash().to_string(), block.bytes().to_vec());
            Ok(())
        };
        let mut tree = Tree::default();
        (0..hashes).for_each(|n| tree.push(Hash::of(&n.to_le_bytes()), &mut tell).unwrap());
        let hash = tree.finish(size, &mut tell).unwrap().to_string();
        (Root::parse(&blocks[&hash]).unwrap(), blocks)
    }

    #[test]
    fn a_tree_comes_apart_into_the_hashes_that_it_was_made_of() {
        // 60 blocks of a list hold the hashes of 3780 (60 * 4096 / 65) blocks.
        let block = BLOCK_SIZE as u64;
        for (count, depth) in [(0, 0), (1, 0), (60, 0), (61, 1), (3780, 1), (3781, 2)] {
            let size = (count * block).saturating_sub(u64::from(count > 0));
            let (root, blocks) = tree(count, size);
            assert_eq!((root.size, root.depth()), (size, depth), "{count}");
            let mut hashes = root.hashes.clone();
            for level in (1..=depth).rev() {
                assert_eq!(hashes.len() as u64, root.blocks(level));
                let texts = hashes.iter().map(|hash| &blocks[&hash.to_string()]);
                let lengths = (0..).map(|number| root.block_length(level, number));
                assert!(texts.clone().map(Vec::len).eq(lengths.take(hashes.len())));
                let text = texts.flatten().copied().collect::<Vec<u8>>();
                let lines = text.split_inclusive(|&c| c == b'\n');
                hashes = lines
                    .map(|line| Hash::parse(line.strip_suffix(b"\n").unwrap()).unwrap())
                    .collect();
            }
            assert!(
                hashes
                    .into_iter()
                    .eq((0..count).map(|n| Hash::of(&n.to_le_bytes())))
            );
        }
    }

    #[test]
    fn the_largest_root_block_is_a_block() {
        let size = u64::MAX;
        let hashes = vec![Hash::of(b"x"); MOST];
        let root = Root { size, hashes };
        assert!(root.text().len() <= BLOCK_SIZE && root.blocks(root.depth()) <= MOST as u64);
    }

    #[test]
    fn refuses_what_is_not_exactly_a_root_block() {
        let (root, _) = tree(2, 5000);
        let text = String::from_utf8(root.text()).unwrap();
        assert_eq!(Root::parse(text.as_bytes()), Some(root));
        let first = text.lines().nth(3).unwrap();
        for (from, to) in [
            ("psync root 1", "psync root 2"),
            ("psync root 1\n", ""),
            ("psync root 1\n", "\npsync root 1\n"),
            ("size 5000", "size 05000"),
            ("size 5000", "size +5000"),
            ("size 5000", "size 4096"),
            ("size 5000", "size 8193"),
            ("size 5000", "size 18446744073709551616"),
            ("size 5000", "size -1"),
            ("size 5000", "Size 5000"),
            ("size 5000\ndepth 0\n", "depth 0\nsize 5000\n"),
            ("depth 0", "depth 1"),
            ("depth 0", "depth 00"),
            ("depth 0\n", ""),
            ("\n", "\r\n"),
            (first, &first[1..]),
            (first, &first.replace(|c: char| c.is_ascii_lowercase(), "A")),
            (first, &format!("{first}\n{first}")),
            (first, &format!("{first}\n")),
            (first, &format!(" {first}")),
        ] {
            let wrong = text.replacen(from, to, if from == "\n" { 9 } else { 1 });
            assert_ne!(wrong, text, "{from} {to}");
            assert_eq!(Root::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
        for end in ["\n", " ", "\0", "x", &format!("{first}\n")] {
            assert_eq!(
                Root::parse(format!("{text}{end}").as_bytes()),
                None,
                "{end:?}"
            );
        }
        assert_eq!(Root::parse(text.trim_end().as_bytes()), None);
        assert_eq!(Root::parse(b""), None);
        assert_eq!(Root::parse(&[0; BLOCK_SIZE]), None);
    }
}
