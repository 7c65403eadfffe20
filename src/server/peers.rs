//! The file that `--peers` names: a text for people and for `get --peers`, one server a line.
//!
//! This file owns the reading of it, at each request anew. It neither looks at what the text says nor keeps
//! it.

use std::io::{self, Read};
use std::path::Path;

use crate::file;
use crate::peers_text::{MAX_TEXT, cut_to_whole_lines};

/// Reads the text, of a long file as much of it as `get --peers` reads. Neither waits for the other end of a FIFO nor reads a device without end.
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
        cut_to_whole_lines(&mut text);
    }
    Ok(text)
}
