//! The hashlist that a `POST /blocks` brings: read as it arrives, held as hashes, never as text.
//!
//! This file owns the body's deadline, and reads no byte behind the body's end: what follows is
//! the next request.

use std::io::{self, BufRead, Read};
use std::net::TcpStream;
use std::time::Instant;

use super::http::{MAX_LIST_LINES, Status};
use crate::block;
use crate::hash::Hash;
use crate::hashlist;

/// A request's body, as a reader.
pub struct Body<'a> {
    stream: &'a TcpStream,
    /// What came with the head.
    early: &'a [u8],
    /// Bytes not yet received.
    left: usize,
    /// For the whole body, not restarted by each byte.
    deadline: Instant,
    buffer: &'a mut [u8],
    /// Where in `buffer` the bytes lie that are received and not yet consumed.
    start: usize,
    end: usize,
    /// How it ended before its end.
    failure: Option<io::ErrorKind>,
}

impl<'a> Body<'a> {
    /// `length` bytes, the first of them `early`. Those on the way are received into `buffer`.
    pub fn new(
        stream: &'a TcpStream,
        length: usize,
        early: &'a [u8],
        deadline: Instant,
        buffer: &'a mut [u8],
    ) -> Self {
        Body {
            stream,
            early,
            left: length - early.len(),
            deadline,
            buffer,
            start: 0,
            end: 0,
            failure: None,
        }
    }

    /// Reads all of it into `hashes`.
    ///
    /// # Errors
    /// The refusal that is due, or none where the client is gone.
    pub fn read_list(mut self, hashes: &mut Vec<Hash>) -> Result<(), Option<Status>> {
        let mut reader = hashlist::Reader::new(&mut self, String::new());
        loop {
            match reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some(_)) if hashes.len() == MAX_LIST_LINES => {
                    return Err(Some(Status::ContentTooLarge));
                }
                Ok(Some(hash)) => hashes.push(hash),
                Err(_) => {
                    return Err(match self.failure {
                        None => Some(Status::BadRequest),
                        Some(io::ErrorKind::TimedOut) => Some(Status::RequestTimeout),
                        Some(_) => None,
                    });
                }
            }
        }
    }

    /// Waits for more of it.
    fn receive(&mut self) -> io::Result<usize> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let room = self.left.min(self.buffer.len());
            match block::read_some(&mut self.stream, &mut self.buffer[..room]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Whether the time is up is seen above.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

impl BufRead for Body<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.early.is_empty() {
            return Ok(self.early);
        }
        if self.start == self.end && self.left > 0 {
            let received = self.receive();
            self.failure = received.as_ref().err().map(io::Error::kind);
            (self.start, self.end) = (0, received?);
            self.left -= self.end;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        if self.early.is_empty() {
            self.start += count;
        } else {
            self.early = &self.early[count..];
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Duration;

    /// What is made of a list that is `early` and then `late`, received four bytes at a time, and
    /// what is left behind it.
    fn read(early: &[u8], late: &[u8], length: usize) -> (Result<usize, Option<Status>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(late).unwrap();
        drop(near);
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut hashes, mut buffer, mut rest) = (Vec::new(), [0; 4], Vec::new());
        let body = Body::new(&far, length, early, deadline, &mut buffer);
        let read = body.read_list(&mut hashes).map(|()| hashes.len());
        far.read_to_end(&mut rest).unwrap();
        (read, rest)
    }

    #[test]
    fn takes_exactly_the_bytes_of_its_length() {
        let list = format!("{}\r\n{}", Hash::of(b"a"), Hash::of(b"b"));
        let (list, length) = (list.as_bytes(), list.len());
        for cut in 0..=length {
            let late = [&list[cut..], b"GET"].concat();
            assert_eq!(
                read(&list[..cut], &late, length),
                (Ok(2), b"GET".to_vec()),
                "{cut}"
            );
        }
        assert_eq!(read(b"", b"GET", 0), (Ok(0), b"GET".to_vec()));
    }

    #[test]
    fn says_what_is_wrong_with_it() {
        let line = format!("{}\n", Hash::of(b"a"));
        let list = line.repeat(MAX_LIST_LINES + 1);
        let (list, one_over) = (list.as_bytes(), list.len());
        let full = one_over - line.len();
        assert_eq!(
            read(list, b"", one_over).0,
            Err(Some(Status::ContentTooLarge))
        );
        assert_eq!(read(&list[..full], b"", full).0, Ok(MAX_LIST_LINES));
        assert_eq!(read(b"", b"\n", 1).0, Err(Some(Status::BadRequest)));
        // Cut short: there is nobody to tell.
        assert_eq!(read(b"", &list[..64], 65).0, Err(None));
    }
}
