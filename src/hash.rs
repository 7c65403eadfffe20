//! The name of a block: its SHA-256. Only this file uses `sha2`.

use std::array;
use std::fmt;

use sha2::{Digest, Sha256};

/// Bytes of a hash.
pub const HASH_LEN: usize = 32;

/// Characters of a hash in its one written form.
pub const HEX_LEN: usize = 2 * HASH_LEN;

/// A SHA-256, made by hashing, by a strict parse, or from the bytes of another `Hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hash([u8; HASH_LEN]);

impl Hash {
    pub fn of(bytes: &[u8]) -> Self {
        Hash(Sha256::digest(bytes).into())
    }

    /// The number of bytes, from the first on, that have this hash. Costs some thousand hashes: for the
    /// one block of unknown length.
    pub fn length_in(&self, bytes: &[u8]) -> Option<usize> {
        let mut sha = Sha256::new();
        let is_end = |byte: &u8| {
            sha.update([*byte]);
            sha.clone().finalize()[..] == self.0
        };
        bytes.iter().position(is_end).map(|at| at + 1)
    }

    /// Parses exactly 64 characters `0-9a-f`. Upper case is not a hash: one block, one name.
    pub fn parse(hex: &[u8]) -> Option<Self> {
        if hex.len() != HEX_LEN {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Hash(bytes))
    }

    /// The hash, for a buffer of many.
    pub fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }

    /// The hash that `as_bytes` gave.
    pub fn from_bytes(bytes: &[u8; HASH_LEN]) -> Self {
        Hash(*bytes)
    }

    /// The hash as numbers, for a table.
    pub fn words(&self) -> [u32; 8] {
        let (words, _) = self.0.as_chunks();
        array::from_fn(|at| u32::from_le_bytes(words[at]))
    }

    pub fn to_hex(self) -> [u8; HEX_LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; HEX_LEN];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let hex = self.to_hex();
        // Digits are text.
        f.write_str(str::from_utf8(&hex).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's "abc" example.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn hashes_and_prints_and_parses() {
        let hash = Hash::of(b"abc");
        assert_eq!(hash.to_string(), ABC);
        assert_eq!(hash.to_hex().as_slice(), ABC.as_bytes());
        assert_eq!(Hash::parse(ABC.as_bytes()), Some(hash));
    }

    #[test]
    fn finds_the_length_that_it_is_of() {
        let hash = Hash::of(b"abc");
        assert_eq!(hash.length_in(b"abcdef"), Some(3));
        assert_eq!(hash.length_in(b"abc"), Some(3));
        assert_eq!(hash.length_in(b"ab"), None);
        assert_eq!(hash.length_in(b"xabc"), None);
    }

    #[test]
    fn has_one_written_form() {
        for wrong in [
            "",
            &ABC[1..],
            &format!("{ABC}0"),
            &ABC.to_uppercase(),
            &ABC.replacen('b', "g", 1),
            &ABC.replacen("ba", "+f", 1),
            &ABC.replacen("ba", " a", 1),
            &ABC.replacen("ba", "0x", 1),
            &ABC.replacen('b', "\0", 1),
            &ABC.replacen('b', "/", 1),
            &ABC.replacen('b', ":", 1),
            &ABC.replacen('b', "`", 1),
        ] {
            assert_eq!(Hash::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
