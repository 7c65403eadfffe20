//! The file that `--peers` names: a text for people and for `get --peers`, one server a line.
//!
//! This file owns the reading of it, at each request anew. It neither looks at what the text says nor keeps
//! it.

use std::io::{self, Read};
use std::path::Path;

use crate::file;

/// Bytes of the text, at most: `get --peers` reads no more. A longer file ends with its last whole line that
/// fits.
const MAX_TEXT: usize = 64 * 1024;

/// Reads the text. Neither waits for the other end of a FIFO nor reads a device without end.
///
/// # Errors
/// When the file cannot be opened or read, or is not a regular one.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (text_file, metadata) = file::open(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut text = Vec::with_capacity(length.min(MAX_TEXT));
    // A failure loses all of it: what was read until then may end in the middle of a name.
    text_file.take(MAX_TEXT as u64).read_to_end(&mut text)?;
    if length > MAX_TEXT {
        let line_end = text.iter().rposition(|&c| c == b'\n');
        text.truncate(line_end.map_or(0, |at| at + 1));
    }
    Ok(text)
}
