//! Files made from a seed, and the formats of the protocol worked out a second time, without psync.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::slice::Chunks;

use sha2::{Digest, Sha256};

pub const BLOCK_SIZE: usize = 4096;

pub type BlockMap = BTreeMap<String, Vec<u8>>;

/// `len` bytes that look random and are the same for the same seed (xorshift64*).
pub fn random(len: usize, seed: u64) -> Vec<u8> {
    // Zero would stay zero, and small seeds start out alike.
    let mut x = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        bytes.extend_from_slice(&x.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn blocks(bytes: &[u8]) -> Chunks<'_, u8> {
    bytes.chunks(BLOCK_SIZE)
}

pub fn hash_hex(block: &[u8]) -> String {
    let digest = Sha256::digest(block);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

pub fn hashlist(bytes: &[u8]) -> String {
    blocks(bytes).map(|block| hash_hex(block) + "\n").collect()
}

pub fn block_map(bytes: &[u8]) -> BlockMap {
    blocks(bytes)
        .map(|block| (hash_hex(block), block.to_vec()))
        .collect()
}

/// Fills a block directory, made if missing, and returns the hashlist.
#[track_caller]
pub fn write_blocks(dir: impl AsRef<Path>, bytes: &[u8]) -> String {
    let dir = dir.as_ref();
    fs::create_dir_all(dir).unwrap();
    for (hash, block) in block_map(bytes) {
        fs::write(dir.join(hash), block).unwrap();
    }
    hashlist(bytes)
}

/// Fails unless every hash of the list names exactly its block in `dir`.
#[track_caller]
pub fn assert_stored(dir: impl AsRef<Path>, list: &str) {
    let mut hashes: Vec<_> = list.lines().collect();
    hashes.sort_unstable();
    hashes.dedup();
    for hash in hashes {
        let path = dir.as_ref().join(hash);
        let block = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let sized = (1..=BLOCK_SIZE).contains(&block.len());
        assert!(
            sized && hash_hex(&block) == hash,
            "{}: wrong",
            path.display()
        );
    }
}

/// What lies in `dir` apart from files named by a hash: nothing, where all was cleaned up.
#[track_caller]
pub fn strangers(dir: impl AsRef<Path>) -> Vec<String> {
    let is_hash = |name: &str| {
        name.len() == 64 && name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut names = names(dir);
    names.retain(|name| !is_hash(name));
    names
}

/// Names in `dir`, sorted.
#[track_caller]
pub fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
