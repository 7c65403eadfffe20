//! The file that `--peers` names: a text for people and for `get --peers`, one server a line.
//!
//! This file owns how it is read, at each request anew. It does not look at what the text says, and
//! holds nothing.

use std::io::{self, Read};
use std::path::Path;

use crate::file;

/// Bytes of the text, at most: `get --peers` reads no more. Of a longer file it is the whole lines
/// that fit.
const MAX_TEXT: usize = 64 * 1024;

/// Reads the text. Neither waits for the other end of a FIFO nor reads a device without end.
///
/// # Errors
/// When it cannot be opened or read, or is no file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (text_file, metadata) = file::open(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut text = Vec::with_capacity(length.min(MAX_TEXT));
    // A part, where reading fails, may end in the middle of a name.
    text_file.take(MAX_TEXT as u64).read_to_end(&mut text)?;
    if length > MAX_TEXT {
        let line_end = text.iter().rposition(|&c| c == b'\n');
        text.truncate(line_end.map_or(0, |at| at + 1));
    }
    Ok(text)
}
