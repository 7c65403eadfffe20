//! A connection's input: the bytes that were received and not yet answered, in one growing buffer. A request
//! is parsed where it lies: its head, and behind it the list, whose lines are replaced by their hashes.
//!
//! This file owns the deadlines of receiving, and the buffer's size.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::clients::{Client, Clients, Reservation};
use super::http::{self, List, MAX_HEAD, Request, Status, Wanted};
use super::list::{ListParser, Progress};
use super::socket::{self, IDLE};
use crate::block;
use crate::hash::HASH_LEN;

/// After a last answer the client's bytes are read on for so long: closing with bytes unread resets
/// the connection, and the answer may be lost with it (RFC 9112, section 9.6). Meanwhile the
/// connection is one that makes room for others.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a head received at once: a usual head is a tenth of it.
const HEAD_PART: usize = 2048;

/// Bytes of a list that are there at once, at most. More would save a call in a hundred of those that its
/// blocks take.
const LIST_PART: usize = 4608;

/// Bytes that every connection may have without a reservation: a usual head and the part after it.
const SMALL: usize = 2 * HEAD_PART;

/// Bytes for the longest head, and what is received with its end.
const LONG_HEAD: usize = MAX_HEAD + 2 * HEAD_PART;

/// A request as it was received.
pub struct Received {
    /// The request, or the refusal that is due in its place.
    pub request: Request,
    /// Bytes of its head, with which the input begins.
    pub head: usize,
    /// Bytes of its head and the hashes of its list.
    pub end: usize,
}

impl Received {
    fn without_list(request: Request, head: usize) -> Self {
        Received {
            request,
            head,
            end: head,
        }
    }

    fn refused(status: Status, head: usize) -> Self {
        Received::without_list(Request::broken(status), head)
    }
}

/// How the wait for more bytes ended.
enum Wait {
    Received,
    DeadlinePassed,
}

pub struct Input<'a> {
    client: &'a Client,
    timeout: Duration,
    bytes: Vec<u8>,
    /// What `bytes` takes, where that is more than `SMALL`.
    reservation: Reservation<'a>,
    /// Until when the head or list under way must be whole, from its first byte on. The socket's timeout is
    /// `IDLE` where there is none.
    deadline: Option<Instant>,
}

impl<'a> Input<'a> {
    pub fn new(clients: &'a Clients, client: &'a Client, timeout: Duration) -> Self {
        Input {
            client,
            timeout,
            bytes: Vec::new(),
            reservation: Reservation::new(clients, client),
            deadline: None,
        }
    }

    fn stream(&self) -> &'a TcpStream {
        &self.client.stream
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Waits for a whole request.
    ///
    /// # Errors
    /// When the client has left, has been silent for `IDLE`, or the connection fails.
    pub fn next_request(&mut self) -> io::Result<Received> {
        let (request, head) = self.receive_head()?;
        let received = match request.wanted {
            Wanted::Blocks(list) => self.receive_list(request, head, list)?,
            _ => Received::without_list(request, head),
        };
        if self.deadline.take().is_some() {
            self.stream().set_read_timeout(Some(IDLE))?;
        }
        Ok(received)
    }

    /// Receives a head; tells its length.
    fn receive_head(&mut self) -> io::Result<(Request, usize)> {
        loop {
            let length = self.bytes.len();
            if let Some(parsed) = http::parse(&self.bytes) {
                return Ok(parsed);
            }
            if length > 0 && self.deadline.is_none() {
                self.deadline = Some(Instant::now() + self.timeout);
            }
            if length >= HEAD_PART && !self.make_room(LONG_HEAD) {
                return Ok((Request::broken(Status::Unavailable), length));
            }
            match self.receive(HEAD_PART)? {
                Wait::Received => {}
                Wait::DeadlinePassed => {
                    return Ok((Request::broken(Status::RequestTimeout), length));
                }
            }
        }
    }

    /// Receives the list behind a head of `head` bytes.
    fn receive_list(&mut self, request: Request, head: usize, list: List) -> io::Result<Received> {
        let refused = |status| Ok(Received::refused(status, head));
        let room = head + list.max_lines() * HASH_LEN + list.length.min(LIST_PART);
        if !self.make_room(room) {
            return refused(Status::Unavailable);
        }
        if list.awaits_continue && self.bytes.len() == head && list.length > 0 {
            socket::send_all(self.stream(), http::CONTINUE)?;
        }
        let list_deadline = Instant::now() + self.timeout;
        let mut parser = ListParser::new(head, list);
        loop {
            match parser.parse(&mut self.bytes) {
                Progress::Whole => break,
                Progress::Refused(status) => return refused(status),
                Progress::Incomplete => {}
            }
            self.deadline = Some(list_deadline);
            // Nothing behind the list: that is the next request's.
            let part = parser.left.min(LIST_PART);
            let arrived = self.bytes.len() - parser.end;
            match self.receive(part - arrived)? {
                Wait::Received => {}
                Wait::DeadlinePassed => return refused(Status::RequestTimeout),
            }
        }
        self.shrink();
        Ok(Received {
            request,
            head,
            end: parser.end,
        })
    }

    /// Receives at most `count` bytes more.
    fn receive(&mut self, count: usize) -> io::Result<Wait> {
        loop {
            if let Some(deadline) = self.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Wait::DeadlinePassed);
                }
                self.stream().set_read_timeout(Some(left))?;
            }
            let held = self.bytes.len();
            lengthen(&mut self.bytes, count);
            let received = block::read_some(&mut self.stream(), &mut self.bytes[held..]);
            self.bytes.truncate(held + *received.as_ref().unwrap_or(&0));
            match received {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(Wait::Received),
                // The next round sees whether the deadline has passed.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.deadline.is_some() => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes room for so many bytes; false where the budget has too little.
    fn make_room(&mut self, bytes: usize) -> bool {
        if bytes > SMALL && !self.reservation.grow(bytes) {
            return false;
        }
        let missing = bytes.saturating_sub(self.bytes.len());
        self.bytes.reserve_exact(missing);
        true
    }

    /// Drops the first `count` bytes, which are answered.
    pub fn consume(&mut self, count: usize) {
        self.bytes.drain(..count);
        // What follows may be as long.
        if self.bytes.len() < HEAD_PART {
            self.shrink();
        }
    }

    /// Gives back the room that its bytes do not take.
    fn shrink(&mut self) {
        let room = self.bytes.len().max(SMALL);
        self.bytes.shrink_to(room);
        self.reservation.shrink(if room > SMALL { room } else { 0 });
    }

    /// Ends the sending side and waits a little for the client to have read the last answer.
    ///
    /// # Errors
    /// When the client has left, or the connection fails.
    pub fn linger(&mut self) -> io::Result<()> {
        self.stream().shutdown(Shutdown::Write)?;
        self.deadline = Some(Instant::now() + LINGER);
        loop {
            self.consume(self.bytes.len());
            match self.receive(HEAD_PART)? {
                Wait::Received => {}
                Wait::DeadlinePassed => return Ok(()),
            }
        }
    }
}

/// Appends `count` zeros, many at once: `Vec::resize` of a program built for size appends one after the
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
