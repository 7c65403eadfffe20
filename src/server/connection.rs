//! One connection, from its first request to its last answer, on a thread of its own.
//!
//! This file owns the deadlines and the order of things: an answer is sent whole before the next
//! request is looked at. It reads blocks through a `View` of the block directory and never writes.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::clients::{Admitted, Client, Clients, LongHead};
use super::http::{self, Request, Status, Wanted};
use crate::block::{self, READ_SIZE};
use crate::console;
use crate::hash::Hash;
use crate::store::View;

/// A connection without a request begun ends after this.
const IDLE: Duration = Duration::from_secs(60);

/// After a last answer the client's bytes are read on for so long: closing with bytes unread resets
/// the connection, and the answer may be lost with it (RFC 9112, section 9.6). Meanwhile the
/// connection is one that makes room for others.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes read at once: a usual head is a tenth of it.
const INPUT: usize = 2048;

/// Room for the head of an answer, so that its body can be read in place behind it.
const HEAD_ROOM: usize = 512;

/// One connection's state.
pub struct Connection<'a> {
    clients: &'a Clients,
    client: &'a Client,
    view: View,
    timeout: Duration,
    verbose: bool,
    /// Bytes received and not yet answered.
    input: Vec<u8>,
    /// Held while `input` has the room for the longest head.
    long_head: Option<LongHead<'a>>,
    head: Vec<u8>,
    /// `HEAD_ROOM`, then a block. Empty before the first block: most idle connections cost none.
    answer: Vec<u8>,
}

/// What was answered, for the log.
struct Answered {
    status: u16,
    /// Bytes of the body.
    sent: io::Result<usize>,
}

impl<'a> Connection<'a> {
    pub fn new(admitted: &'a Admitted, view: View, timeout: Duration, verbose: bool) -> Self {
        Connection {
            clients: &admitted.clients,
            client: &admitted.client,
            view,
            timeout,
            verbose,
            input: Vec::new(),
            long_head: None,
            head: Vec::new(),
            answer: Vec::new(),
        }
    }

    /// Answers requests until the client, a deadline or a refusal ends it.
    pub fn run(&mut self) {
        // How a connection failed is its client's affair: there is nobody here to tell.
        let _ = self.serve();
    }

    fn stream(&self) -> &'a TcpStream {
        &self.client.stream
    }

    fn serve(&mut self) -> io::Result<()> {
        self.stream().set_nodelay(true)?;
        // A write that makes progress begins anew: the time counts from the last byte taken.
        self.stream().set_write_timeout(Some(self.timeout))?;
        self.stream().set_read_timeout(Some(IDLE))?;
        while let Some((request, length)) = self.next_request()? {
            self.client.begin_answer();
            let started = self.verbose.then(Instant::now);
            let answered = self.answer(&request);
            if let Some(started) = started {
                self.log(length, &answered, started);
            }
            answered.sent?;
            self.client.end_answer();
            if !request.keep_alive {
                return self.linger();
            }
            self.input.drain(..length);
            if self.input.len() < INPUT && self.long_head.take().is_some() {
                self.input.shrink_to(INPUT);
            }
        }
        Ok(())
    }

    /// Waits for a whole request, and tells the length of its head. None where the connection ends.
    fn next_request(&mut self) -> io::Result<Option<(Request, usize)>> {
        let mut deadline = None;
        loop {
            if let Some(parsed) = http::parse(&self.input) {
                if deadline.is_some() {
                    self.stream().set_read_timeout(Some(IDLE))?;
                }
                return Ok(Some(parsed));
            }
            if !self.input.is_empty() {
                // For the whole head from its first byte on, not restarted by each byte.
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.timeout);
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Some((
                        Request::broken(Status::RequestTimeout),
                        self.input.len(),
                    )));
                }
                self.stream().set_read_timeout(Some(left))?;
            }
            match self.receive() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // Whether the time for the head is up is seen above.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && deadline.is_some() => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let held = self.input.len();
        if held >= INPUT && self.long_head.is_none() {
            self.long_head = Some(self.clients.begin_long_head(self.client));
            self.input.reserve_exact(http::MAX_HEAD + INPUT);
        }
        self.input.resize(held + INPUT, 0);
        let received = block::read_some(&mut self.stream(), &mut self.input[held..]);
        self.input.truncate(held + *received.as_ref().unwrap_or(&0));
        received
    }

    fn answer(&mut self, request: &Request) -> Answered {
        self.head.clear();
        match request.wanted {
            Wanted::Block(hash) => self.answer_block(request, &hash),
            Wanted::Refusal(status) => self.refuse(request, status),
            Wanted::Index => {
                let body = http::push_index(&mut self.head, request);
                self.send(200, &self.head, body)
            }
        }
    }

    fn answer_block(&mut self, request: &Request, hash: &Hash) -> Answered {
        let length = match self.read(hash) {
            Ok(Some(length)) => length,
            Ok(None) => return self.refuse(request, Status::NotFound),
            Err(_) => return self.refuse(request, Status::Unavailable),
        };
        http::push_block_head(&mut self.head, request, hash, length);
        let start = HEAD_ROOM - self.head.len();
        self.answer[start..HEAD_ROOM].copy_from_slice(&self.head);
        let body = if request.head_only { 0 } else { length };
        self.send(200, &self.answer[start..HEAD_ROOM + body], body)
    }

    /// Reads a block into its place in the answer; tells its length, or that it is absent. Where
    /// the machine is short of something, somebody silent makes room before the second try.
    fn read(&mut self, hash: &Hash) -> io::Result<Option<usize>> {
        self.answer.resize(HEAD_ROOM + READ_SIZE, 0);
        let Some((_, room)) = self.answer.split_last_chunk_mut() else {
            return Ok(None);
        };
        let mut block = self.view.read(hash, room);
        if block.is_err() {
            self.clients.wait_out_shortage();
            block = self.view.read(hash, room);
        }
        Ok(block?.map(|block| block.bytes().len()))
    }

    fn refuse(&mut self, request: &Request, status: Status) -> Answered {
        let body = http::push_refusal(&mut self.head, request, status);
        self.send(status as u16, &self.head, body)
    }

    fn send(&self, status: u16, answer: &[u8], body: usize) -> Answered {
        let sent = self.stream().write_all(answer).map(|()| body);
        Answered { status, sent }
    }

    /// One line a request: client, request line, status, bytes of the body or - where the client
    /// was gone, microseconds. The request line is escaped, so that it cannot be taken for more.
    fn log(&self, length: usize, answered: &Answered, started: Instant) {
        let head = self.input[..length].trim_ascii_start();
        let line = head.split(|&c| c == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(&line[..line.len().min(http::MAX_LINE)]);
        let sent = answered
            .sent
            .as_ref()
            .map_or("-".to_owned(), usize::to_string);
        let (client, micros) = (self.client.address, started.elapsed().as_micros());
        let status = answered.status;
        console::complain(format_args!("{client} {line:?} {status} {sent} {micros}"));
    }

    /// Ends the sending side and waits a little for the client to have read the last answer.
    fn linger(&mut self) -> io::Result<()> {
        self.stream().shutdown(Shutdown::Write)?;
        let end = Instant::now() + LINGER;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.stream().set_read_timeout(Some(left))?;
            self.input.clear();
            if self.receive()? == 0 {
                break;
            }
        }
        Ok(())
    }
}
