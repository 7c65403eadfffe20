//! The hashlist: text to hashes and back, a line at a time.
//!
//! This file owns the grammar and its refusals. It opens nothing, and holds at most one line, of at most
//! [`MAX_LINE`] bytes.

use std::io::{BufRead, BufReader, ErrorKind, Read};

use crate::error::{Error, Result};
use crate::hash::{HEX_LEN, Hash};

/// Bytes of a line as psync writes it: a hash and LF.
pub const LINE: usize = HEX_LEN + 1;

/// A hash and CRLF, in bytes.
const MAX_LINE: usize = HEX_LEN + 2;

/// Appends the line of `hash`.
pub fn push_line(text: &mut Vec<u8>, hash: &Hash) {
    text.extend_from_slice(&hash.to_hex());
    text.push(b'\n');
}

/// Reads hashes one after the other. Refuses a line that is not exactly one hash.
pub struct Reader<R> {
    input: R,
    name: String,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    /// Refusals name the list `name`.
    pub fn new(input: R, name: String) -> Self {
        Reader {
            input,
            name,
            line: 0,
            buffer: Vec::new(),
        }
    }

    /// The next hash, or none at the end.
    ///
    /// # Errors
    /// Exit code 2, as `NAME:LINE`, for a line that is not a hash; 1 when the input fails.
    pub fn next(&mut self) -> Result<Option<Hash>> {
        self.line += 1;
        self.buffer.clear();
        let mut input = self.input.by_ref().take(MAX_LINE as u64);
        let read = input.read_until(b'\n', &mut self.buffer);
        read.map_err(|e| Error::io("read hashlist", &self.name, &e))?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let line = without_end(&self.buffer);
        Hash::parse(line).map(Some).ok_or_else(|| {
            let place = format!("{}:{}", self.name, self.line);
            Error::malformed("read hashlist", place, refusal(line))
        })
    }

    /// Whether there is no other line.
    ///
    /// # Errors
    /// Exit code 1 when the input fails.
    pub fn is_at_end(&mut self) -> Result<bool> {
        loop {
            match self.input.fill_buf() {
                Ok(rest) => return Ok(rest.is_empty()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read hashlist", &self.name, &e)),
            }
        }
    }
}

impl<R: Read> Reader<BufReader<R>> {
    /// Whether the next line is in the buffer, so that reading it does not wait.
    pub fn has_line(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }
}

/// The first line of a text.
#[derive(Debug, PartialEq)]
pub enum FirstLine {
    /// A hash, and the bytes of its line with the line end.
    Hash(Hash, usize),
    Malformed,
    /// The rest of the line is still to come.
    Incomplete,
}

/// Parses the first line of `text`. `is_all`: nothing follows the text.
pub fn first_line(text: &[u8], is_all: bool) -> FirstLine {
    let most = &text[..text.len().min(MAX_LINE)];
    let end = match most.get(HEX_LEN..) {
        // As nearly all lines end, without a search.
        Some([b'\n', ..]) => Some(HEX_LEN),
        _ => most.iter().position(|&c| c == b'\n'),
    };
    let line = match end {
        Some(end) => &most[..=end],
        None if is_all || most.len() == MAX_LINE => most,
        None => return FirstLine::Incomplete,
    };
    match Hash::parse(without_end(line)) {
        Some(hash) => FirstLine::Hash(hash, line.len()),
        None => FirstLine::Malformed,
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

/// Says what is wrong with a line that is not a hash.
fn refusal(line: &[u8]) -> String {
    const DUE: &str = "where a hash (64 characters 0-9a-f) is due";
    if line.is_empty() {
        return format!("a blank line {DUE}");
    }
    if line.starts_with(b"\xef\xbb\xbf") {
        return format!("a byte order mark {DUE}");
    }
    let is_wrong = |c: &u8| !matches!(c, b'0'..=b'9' | b'a'..=b'f');
    if let Some(at) = line.iter().position(is_wrong) {
        let found = match line[at] {
            c @ b'A'..=b'F' => format!("upper-case '{}'", char::from(c)),
            c if c.is_ascii_graphic() => format!("'{}'", char::from(c)),
            c => format!("byte 0x{c:02x}"),
        };
        return format!("{found} in column {} {DUE}", at + 1);
    }
    if line.len() > HEX_LEN {
        return format!("more than {HEX_LEN} characters {DUE}");
    }
    format!("{} characters {DUE}", line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const B: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(text: &str) -> std::result::Result<Vec<String>, String> {
        let mut reader = Reader::new(text.as_bytes(), "LIST".to_owned());
        let mut hashes = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(hash)) => hashes.push(hash.to_string()),
                Ok(None) => return Ok(hashes),
                Err(error) => return Err(format!("{error:?}")),
            }
        }
    }

    #[test]
    fn accepts_every_line_end_of_the_protocol() {
        for text in ["{A}\n{B}\n", "{A}\r\n{B}\r\n", "{A}\n{B}", "{A}\r\n{B}"] {
            let text = text.replace("{A}", A).replace("{B}", B);
            assert_eq!(read(&text).unwrap(), [A, B], "{text:?}");
        }
        assert_eq!(read("").unwrap(), [""; 0]);
        assert_eq!(read(&format!("{A}\n{A}\n")).unwrap(), [A, A]);
    }

    #[test]
    fn refuses_everything_else_by_line() {
        let cases = [
            ("\n".to_owned(), "LIST:1: a blank line"),
            (format!("{A}\n\n{B}\n"), "LIST:2: a blank line"),
            (format!("{A}\n{B}\n\n"), "LIST:3: a blank line"),
            (format!("# list\n{A}\n"), "LIST:1: '#' in column 1"),
            (format!("{A}\n{}\n", &A[1..]), "LIST:2: 63 characters"),
            (format!("{A}0\n"), "LIST:1: more than 64 characters"),
            (format!("{A}00000\n"), "LIST:1: more than 64 characters"),
            // No more of a line is looked at than could be a hash.
            (format!("{A}00 \n"), "LIST:1: more than 64 characters"),
            (format!("{A} \n"), "LIST:1: byte 0x20 in column 65"),
            (format!(" {A}\n"), "LIST:1: byte 0x20 in column 1"),
            (format!("{A}\r"), "LIST:1: byte 0x0d in column 65"),
            (format!("{A}\r\r\n"), "LIST:1: byte 0x0d in column 65"),
            (format!("\u{feff}{A}\n"), "LIST:1: a byte order mark"),
            (
                format!("{}\n", A.to_uppercase()),
                "LIST:1: upper-case 'B' in column 1",
            ),
            (format!("{}\0\n", &A[1..]), "LIST:1: byte 0x00 in column 64"),
            (format!("{}é\n", &A[2..]), "LIST:1: byte 0xc3 in column 63"),
            (format!("{A}  file\n"), "LIST:1: byte 0x20 in column 65"),
        ];
        for (text, due) in cases {
            let refusal = read(&text).unwrap_err();
            assert!(
                refusal.contains(due) && refusal.contains("Usage"),
                "{text:?}: {refusal}"
            );
        }
    }

    #[test]
    fn a_line_in_memory_is_judged_once_it_is_there() {
        let hash = Hash::parse(A.as_bytes()).unwrap();
        let whole = |length| FirstLine::Hash(hash, length);
        let lf = format!("{A}\n{B}");
        assert_eq!(first_line(lf.as_bytes(), false), whole(LINE));
        let crlf = format!("{A}\r\n");
        assert_eq!(first_line(crlf.as_bytes(), false), whole(LINE + 1));
        for cut in 0..LINE {
            let text = &crlf.as_bytes()[..cut];
            assert_eq!(first_line(text, false), FirstLine::Incomplete, "{cut}");
        }
        assert_eq!(first_line(A.as_bytes(), true), whole(HEX_LEN));
        let long = format!("{A}00");
        assert_eq!(first_line(long.as_bytes(), false), FirstLine::Malformed);
        for text in [format!("{A}\r"), "\n".to_owned(), A[1..].to_owned()] {
            assert_eq!(first_line(text.as_bytes(), true), FirstLine::Malformed);
        }
    }

    #[test]
    fn knows_whether_a_line_is_there_already() {
        let text = format!("{A}\n{B}\n");
        for (room, due) in [(LINE + 3, [false; 3]), (2 * LINE, [false, true, false])] {
            let input = BufReader::with_capacity(room, text.as_bytes());
            let mut reader = Reader::new(input, "LIST".to_owned());
            let there = due.map(|_| {
                let there = reader.has_line();
                reader.next().unwrap();
                there
            });
            assert_eq!(there, due, "{room} bytes read at once");
        }
    }
}
