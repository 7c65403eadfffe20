//! A connection's input: the bytes that have arrived and wait for their answer, in one growing buffer. It
//! parses a request where it lies: the head, and behind it the list, whose lines become their hashes.
//!
//! This file owns the deadlines of receiving and the size of the buffer. It sends nothing but `100 Continue`.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::clients::{Admitted, Reservation};
use super::http::{self, Interruption, ListHead, MAX_HEAD, Request, Status, Wanted};
use super::list::ListParser;
use super::socket::{self, IDLE};
use crate::block;
use crate::hash::HASH_LEN;

/// How long the server reads on after a last answer: closing with bytes unread resets the connection, and
/// may lose the answer with it (RFC 9112, section 9.6). Meanwhile the connection counts as idle.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a head received at once: a usual head is a tenth of it.
const HEAD_PART: usize = 2048;

/// Bytes of a list that the buffer holds as text, at most. More would save one in a hundred of the system
/// calls that its blocks take.
const LIST_PART: usize = 4608;

/// Bytes that every connection may have without a reservation: a usual head and the part after it.
const SMALL: usize = 2 * HEAD_PART;

/// Bytes for the longest head, and what arrives with its end.
const LONG_HEAD: usize = MAX_HEAD + 2 * HEAD_PART;

pub struct Input<'a> {
    stream: &'a TcpStream,
    timeout: Duration,
    bytes: Vec<u8>,
    /// For the memory of `bytes`, where that is more than `SMALL`.
    reservation: Reservation<'a>,
    /// When the head or the list that is arriving must be whole. None before its first byte, when the
    /// socket's own timeout is `IDLE`.
    deadline: Option<Instant>,
}

impl<'a> Input<'a> {
    pub fn new(admitted: &'a Admitted, timeout: Duration) -> Self {
        Input {
            stream: &admitted.client.stream,
            timeout,
            bytes: Vec::new(),
            reservation: Reservation::new(admitted),
            deadline: None,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Waits for a whole request, or for a reason to refuse it. Returns it, and where in the input the hashes
    /// of its list lie: the request ends with them.
    ///
    /// # Errors
    /// When the client has left, has been silent for `IDLE`, or the connection fails.
    pub fn next_request(&mut self) -> io::Result<(Request, Range<usize>)> {
        let received = match self.receive_request() {
            Ok(received) => received,
            Err(Interruption::Refused(status)) => (Request::broken(status), 0..0),
            Err(Interruption::Disconnected(e)) => return Err(e),
        };
        if self.deadline.take().is_some() {
            self.stream.set_read_timeout(Some(IDLE))?;
        }
        Ok(received)
    }

    fn receive_request(&mut self) -> Result<(Request, Range<usize>), Interruption> {
        let (request, head) = self.receive_head()?;
        let end = match request.wanted {
            Wanted::Blocks(list) => self.receive_list(head, list)?,
            _ => head,
        };
        Ok((request, head..end))
    }

    /// Receives a head; returns its length too.
    fn receive_head(&mut self) -> Result<(Request, usize), Interruption> {
        loop {
            if let Some(parsed) = http::parse(&self.bytes) {
                return Ok(parsed);
            }
            let length = self.bytes.len();
            if length > 0 && self.deadline.is_none() {
                self.deadline = Some(Instant::now() + self.timeout);
            }
            if length >= HEAD_PART {
                self.make_room(LONG_HEAD)?;
            }
            self.receive(HEAD_PART)?;
        }
    }

    /// Receives the list behind a head of `head` bytes. Returns where its hashes end.
    fn receive_list(&mut self, head: usize, list: ListHead) -> Result<usize, Interruption> {
        self.make_room(head + list.max_lines() * HASH_LEN + list.length.min(LIST_PART))?;
        if list.awaits_continue && self.bytes.len() == head && list.length > 0 {
            socket::send_all(self.stream, http::CONTINUE)?;
        }
        let list_deadline = Instant::now() + self.timeout;
        let mut parser = ListParser::new(head, list);
        loop {
            parser.parse(&mut self.bytes)?;
            if parser.left == 0 {
                self.shrink();
                return Ok(parser.end);
            }
            self.deadline = Some(list_deadline);
            // Not a byte beyond the list, which would be the next request's. What has arrived is shorter than
            // a line, and than the list: else it would be parsed.
            let part = parser.left.min(LIST_PART);
            let arrived = self.bytes.len() - parser.end;
            self.receive(part - arrived)?;
        }
    }

    /// Receives at most `count` bytes more, or none by the deadline, which the next call finds passed.
    fn receive(&mut self, count: usize) -> Result<(), Interruption> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Status::REQUEST_TIMEOUT.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        let held = self.bytes.len();
        lengthen(&mut self.bytes, count);
        let received = block::read_some(&mut self.stream, &mut self.bytes[held..]);
        self.bytes.truncate(held + *received.as_ref().unwrap_or(&0));
        match received {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.deadline.is_some() => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes room for `bytes` in all, as far as the budget allows.
    fn make_room(&mut self, bytes: usize) -> Result<(), Interruption> {
        if bytes > SMALL && !self.reservation.grow(bytes) {
            return Err(Status::UNAVAILABLE.into());
        }
        let missing = bytes.saturating_sub(self.bytes.len());
        self.bytes.reserve_exact(missing);
        Ok(())
    }

    /// Drops the first `count` bytes, whose request is answered.
    pub fn consume(&mut self, count: usize) {
        self.bytes.drain(..count);
        // The rest may be the beginning of a long head.
        if self.bytes.len() < HEAD_PART {
            self.shrink();
        }
    }

    /// Frees the memory that the bytes do not take.
    fn shrink(&mut self) {
        let room = self.bytes.len().max(SMALL);
        self.bytes.shrink_to(room);
        self.reservation.shrink(if room > SMALL { room } else { 0 });
    }

    /// Ends the sending side and waits a little until the client has read the last answer.
    ///
    /// # Errors
    /// When the connection cannot be ended like that.
    pub fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        self.deadline = Some(Instant::now() + LINGER);
        loop {
            self.consume(self.bytes.len());
            if self.receive(HEAD_PART).is_err() {
                return Ok(());
            }
        }
    }
}

/// Appends `count` zeros, many at once. In a program built for size, `Vec::resize` appends one after the
/// other, which takes longer than to receive them.
fn lengthen(bytes: &mut Vec<u8>, mut count: usize) {
    const ZEROS: [u8; 256] = [0; 256];
    bytes.reserve(count);
    while count > 0 {
        let part = count.min(ZEROS.len());
        bytes.extend_from_slice(&ZEROS[..part]);
        count -= part;
    }
}
