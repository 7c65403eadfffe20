//! The text at `/peers`, for both ends: one server a line. `--peers` of the server names its file, `--peers` of
//! `get` asks for it.
//!
//! This file owns how long the text may be. It reads and sends nothing, and knows no server's name.

/// Bytes of the text, at most. Of a longer one the whole lines count that fit.
pub const MAX_TEXT: usize = 64 * 1024;

/// Cuts off what stands after the last line end: it may be the beginning of a name.
pub fn cut_to_whole_lines(text: &mut Vec<u8>) {
    let line_end = text.iter().rposition(|&c| c == b'\n');
    text.truncate(line_end.map_or(0, |at| at + 1));
}
