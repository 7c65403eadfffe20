//! Hashlists: as `get` reads them, and as the body of a `POST /blocks`.

use std::io::BufReader;

use crate::frames::MAX_LINES;
use crate::hash::Hash;
use crate::hashlist::Reader;
use crate::http::{ListHead, Status};
use crate::list_parser::{self, ListParser};
use crate::mutate::Dice;

/// Good lists, of every kind.
pub fn good() -> Vec<Vec<u8>> {
    let line = |n: u8| Hash::of(&[n]).to_string();
    [
        String::new(),
        line(0),
        line(1) + "\n",
        line(2) + "\r\n",
        (0..5).map(|n| line(n) + "\n").collect(),
        (0..5).map(|n| line(n) + "\r\n").collect(),
        (0..5).map(|n| line(n) + "\n").collect::<String>() + &line(9),
        (line(3) + "\n").repeat(20),
    ]
    .map(String::into_bytes)
    .into()
}

/// A second reading: the hashes, in hexadecimal, before the first line that is none, and whether
/// there is such a line.
fn plain_reading(bytes: &[u8]) -> (Vec<String>, bool) {
    let mut hashes = Vec::new();
    for line in bytes.split_inclusive(|&c| c == b'\n') {
        let text = String::from_utf8_lossy(line);
        let hash = text.strip_suffix("\r\n").or(text.strip_suffix('\n'));
        let hash = hash.unwrap_or(&text);
        if hash.len() != 64 || !hash.chars().all(|c| "0123456789abcdef".contains(c)) {
            return (hashes, true);
        }
        hashes.push(hash.to_owned());
    }
    (hashes, false)
}

/// Whether `data` is a hashlist.
///
/// # Panics
/// When the reader takes `data` for anything else than it is.
pub fn check_reader(data: &[u8]) -> bool {
    let (due, refused) = plain_reading(data);
    for room in [1, 7, 8192] {
        let input = BufReader::with_capacity(room, data);
        let mut reader = Reader::new(input, "LIST".to_owned());
        for hash in &due {
            assert_eq!(reader.next().unwrap().unwrap().to_string(), *hash);
        }
        let end = reader.next();
        assert_eq!(end.is_err(), refused);
        assert!(end.is_err_and(|e| e.exit_code() == 2) || !refused);
    }
    !refused
}

/// What a body follows.
const HEAD: &[u8] = b"POST";

/// What follows a body: not one byte of it may be taken.
const NEXT: &[u8] = b"GET /";

/// Whether `data` is a body that is accepted.
///
/// # Panics
/// When the body that `data` is, arriving in three parts, is taken for anything else than it is, or
/// refused later than with its first wrong line.
pub fn check_body(data: &[u8]) -> bool {
    let (due, refused) = plain_reading(data);
    let verdict = match () {
        () if due.len() > MAX_LINES => Err(Status::CONTENT_TOO_LARGE),
        () if refused => Err(Status::BAD_REQUEST),
        () => Ok(()),
    };
    let mut dice = Dice::of(data);
    let second = dice.below(data.len() + 1);
    let first = dice.below(second + 1);
    let list = ListHead {
        length: data.len(),
        awaits_continue: false,
        chunked: true,
    };
    let (mut parser, mut input) = (ListParser::new(HEAD.len(), list), HEAD.to_vec());
    let arriving = [data, NEXT].concat();
    let mut arrived = 0;
    for end in [first, second, arriving.len()] {
        input.extend_from_slice(&arriving[arrived..end]);
        arrived = end;
        let parsed = parser.parse(&mut input);
        if parsed.is_err() || parser.left == 0 {
            assert_eq!(parsed, verdict);
            break;
        }
        assert!(end < data.len(), "more is waited for than comes");
        let (lines, wrong) = plain_reading(&data[..end]);
        let whole = data[..end].iter().filter(|&&c| c == b'\n').count();
        assert!(!wrong || lines.len() == whole, "a wrong line is passed");
    }
    let (parsed, rest) = input.split_at(parser.end);
    assert!(parsed.starts_with(HEAD));
    let most = due.len().min(MAX_LINES);
    assert!(most <= list.max_lines(), "more lines than foreseen");
    let hashes = list_parser::hashes(&parsed[HEAD.len()..]).map(|hash| hash.to_string());
    assert!(hashes.eq(due[..most].iter().cloned()));
    if verdict.is_ok() {
        assert_eq!(rest, &NEXT[..arrived - data.len()]);
    }
    verdict.is_ok()
}
