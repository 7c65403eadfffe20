//! The hashlist of a `POST /blocks`, parsed where it arrives: hashes replace its lines, and take half of the
//! room. The first wrong line is refused at once, before the rest arrives.
//!
//! This file owns the place of the hashes in the input. It is pure: it touches no socket and no clock.

use super::http::{ListHead, Status};
use crate::frames::MAX_LINES;
use crate::hash::{HASH_LEN, Hash};
use crate::hashlist::{self, FirstLine};

/// Parses a list part by part, as it arrives.
pub struct ListParser {
    /// Where in the input its hashes end, and the rest of its text begins.
    pub end: usize,
    /// Bytes of that text, of which a part may not have arrived. The list is whole where it is 0.
    pub left: usize,
    lines: usize,
}

impl ListParser {
    /// For the list behind a head of `head` bytes.
    pub fn new(head: usize, list: ListHead) -> Self {
        ListParser {
            end: head,
            left: list.length,
            lines: 0,
        }
    }

    /// Puts hashes in place of the lines that have arrived in `input`. What follows the list stays.
    ///
    /// # Errors
    /// The refusal of a list with a malformed line, or with too many. What it refuses stays half parsed.
    pub fn parse(&mut self, input: &mut Vec<u8>) -> Result<(), Status> {
        let mut start = self.end;
        while self.left > 0 {
            let arrived = self.left.min(input.len() - start);
            let text = &input[start..start + arrived];
            let (hash, length) = match hashlist::first_line(text, arrived == self.left) {
                FirstLine::Hash(..) if self.lines == MAX_LINES => {
                    return Err(Status::CONTENT_TOO_LARGE);
                }
                FirstLine::Hash(hash, length) => (hash, length),
                FirstLine::Malformed => return Err(Status::BAD_REQUEST),
                FirstLine::Incomplete => break,
            };
            // A line is longer than its hash, so this overwrites only parsed text.
            input[self.end..self.end + HASH_LEN].copy_from_slice(hash.as_bytes());
            self.end += HASH_LEN;
            self.lines += 1;
            self.left -= length;
            start += length;
        }
        input.drain(self.end..start);
        Ok(())
    }
}

/// The hashes of a parsed list.
pub fn hashes(parsed: &[u8]) -> impl ExactSizeIterator<Item = Hash> {
    parsed.as_chunks().0.iter().map(Hash::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HEAD";

    fn parser(length: usize) -> ListParser {
        let list = ListHead {
            length,
            awaits_continue: false,
            chunked: true,
        };
        ListParser::new(HEAD.len(), list)
    }

    #[test]
    fn takes_exactly_the_bytes_of_its_length() {
        let due = [Hash::of(b"a"), Hash::of(b"b")];
        let text = format!("{}\r\n{}", due[0], due[1]);
        for cut in 0..text.len() {
            let (early, late) = text.as_bytes().split_at(cut);
            let (mut parser, mut input) = (parser(text.len()), [HEAD, early].concat());
            parser.parse(&mut input).unwrap();
            assert_ne!(parser.left, 0, "{cut}");
            input.extend([late, b"GET"].concat());
            parser.parse(&mut input).unwrap();
            assert_eq!(parser.left, 0, "{cut}");
            let (parsed, rest) = input.split_at(parser.end);
            assert!(hashes(&parsed[HEAD.len()..]).eq(due));
            assert_eq!((&parsed[..HEAD.len()], rest), (HEAD, &b"GET"[..]));
        }
        let mut input = [HEAD, b"GET"].concat();
        assert_eq!(parser(0).parse(&mut input), Ok(()));
        assert_eq!(input, b"HEADGET");
    }

    #[test]
    fn a_refusal_is_due_with_the_first_wrong_line() {
        let line = format!("{}\n", Hash::of(b"a"));
        let text = line.repeat(MAX_LINES + 1);
        let (text, over) = (text.as_bytes(), text.len());
        let full = over - line.len();
        // The bytes that are left to parse.
        let parse = |text: &[u8], length| {
            let mut parser = parser(length);
            let parsed = parser.parse(&mut [HEAD, text].concat());
            parsed.map(|()| parser.left)
        };
        assert_eq!(parse(&text[..full], full), Ok(0));
        assert_eq!(parse(text, over + 1), Err(Status::CONTENT_TOO_LARGE));
        let bad = || Err(Status::BAD_REQUEST);
        assert_eq!(parse(b"\n", 100), bad());
        // As many bytes as the longest line has, and no end.
        let long = [&text[..129], b"  "].concat();
        assert_eq!(parse(&long[..130], 200), Ok(135));
        assert_eq!(
            [parse(&long[..130], 130), parse(&long, 200)],
            [bad(), bad()]
        );
    }
}
