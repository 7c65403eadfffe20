//! The wire of `POST /blocks`, for both ends: the answer to a hashlist has a frame for each of its lines, the
//! block's length in two bytes, big-endian, and then the block. An absent block has the length 0.
//!
//! This file owns that format. It reads and sends nothing.

/// Lines of the list, at most: 4 MiB of blocks.
pub const MAX_LINES: usize = 1024;

/// Bytes of a frame before its block.
pub const LENGTH: usize = 2;

/// The bytes before a block of `length` bytes.
pub fn encode_length(length: usize) -> [u8; LENGTH] {
    // A block's length fits.
    u16::try_from(length).unwrap_or(0).to_be_bytes()
}

/// Bytes of the block that follows. A faulty server may claim more than a block has.
pub fn decode_length(bytes: [u8; LENGTH]) -> usize {
    u16::from_be_bytes(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_two_bytes_the_high_one_first() {
        assert_eq!(encode_length(4096), [16, 0]);
        for length in [0, 1, 255, 256, 4096, 65_535] {
            assert_eq!(decode_length(encode_length(length)), length);
        }
    }
}
