//! Hashlists: as `get` reads them, and as the body of a `POST /blocks`.

use std::cell::RefCell;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::body::Body;
use crate::hash::Hash;
use crate::hashlist::Reader;
use crate::http::{MAX_LIST_LINES, Status};

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

/// # Panics
/// When the reader takes `data` for anything else than it is.
pub fn check_reader(data: &[u8]) {
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
}

thread_local! {
    static LISTENER: TcpListener = TcpListener::bind("127.0.0.1:0").unwrap();
    /// Both ends of a connection of which nothing is left unread.
    static ENDS: RefCell<Option<(TcpStream, TcpStream)>> = const { RefCell::new(None) };
}

fn connect() -> (TcpStream, TcpStream) {
    LISTENER.with(|listener| {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nodelay(true).unwrap();
        (near, far)
    })
}

/// What follows a body: not one byte of it may be taken.
const NEXT: &[u8] = b"GET /";

/// # Panics
/// When the body that `data` is is read as anything else, or too far.
pub fn check_body(data: &[u8]) {
    let (near, far) = ENDS.take().unwrap_or_else(connect);
    // Some of it comes along with the head.
    let early = data
        .first()
        .map_or(0, |&byte| data.len() * usize::from(byte) / 256);
    let late = [&data[early..], NEXT].concat();
    (&near).write_all(&late).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut hashes, mut buffer) = (Vec::new(), [0; 100]);
    let body = Body::new(&far, data.len(), &data[..early], deadline, &mut buffer);
    let read = body.read_list(&mut hashes);
    let (due, refused) = plain_reading(data);
    let most = due.len().min(MAX_LIST_LINES);
    assert!(
        hashes
            .iter()
            .map(Hash::to_string)
            .eq(due[..most].iter().cloned())
    );
    let verdict = match () {
        () if due.len() > MAX_LIST_LINES => Err(Some(Status::ContentTooLarge)),
        () if refused => Err(Some(Status::BadRequest)),
        () => Ok(()),
    };
    assert_eq!(read, verdict);
    if read.is_ok() {
        let mut rest = [0; NEXT.len()];
        (&far).read_exact(&mut rest).unwrap();
        assert_eq!(rest, NEXT);
        ENDS.set(Some((near, far)));
    }
}
