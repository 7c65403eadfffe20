//! One connection, from its first request to its last answer, on a thread of its own.
//!
//! This file owns the deadlines and the order of things: an answer is sent whole before the next
//! request is looked at. It reads blocks out of `Files` and through a `View` of the block directory,
//! and never writes.
//! A list of blocks is answered with a few of them at a time, each read and hashed just before.

use std::io::{self, Write};
use std::mem;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::body::Body;
use super::clients::{Admitted, Client, Clients, Reservation};
use super::files::Files;
use super::frames::{self, Frames, HEAD_ROOM};
use super::http::{self, List, Request, Status, Wanted};
use super::log::Log;
use super::peers;
use crate::block::{self, READ_SIZE, Slot, Verified};
use crate::console;
use crate::hash::Hash;
use crate::store::View;
use crate::sys;

/// A connection without a request begun ends after this.
const IDLE: Duration = Duration::from_secs(60);

/// After a last answer the client's bytes are read on for so long: closing with bytes unread resets
/// the connection, and the answer may be lost with it (RFC 9112, section 9.6). Meanwhile the
/// connection is one that makes room for others.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes read at once: a usual head is a tenth of it.
const INPUT: usize = 2048;

/// Room for a head that is longer, in bytes: the longest, and what is read with its end.
const LONG_INPUT: usize = http::MAX_HEAD + 2 * INPUT;

/// Writes that are tried in `timeout`. One call does not tell when the last byte of what it wrote was
/// taken, only that it was in its own time: as much as an eighth is given too much.
const WRITES: u32 = 8;

/// Sends all of `bytes`, or gives up where none is taken for `timeout`, as [`set_options`] was told.
fn send_all(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let (mut tries, mut untaken) = (0, None);
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => (bytes, tries) = (&bytes[written..], 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // There is room for more only once a third of what was written is taken, which on a
                // slow line may be later.
                let before = mem::replace(&mut untaken, sys::untaken(stream));
                tries = if before == untaken { tries + 1 } else { 1 };
                if tries == WRITES {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Sets a listening socket's options, which its connections have from it: to set them on each costs
/// a small box three calls to the system a connection.
///
/// # Errors
/// Those of the system.
pub fn set_options(listener: TcpListener, timeout: Duration) -> io::Result<TcpListener> {
    // std sets them by another type, of the same descriptor.
    let socket = TcpStream::from(OwnedFd::from(listener));
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(timeout / WRITES))?;
    socket.set_read_timeout(Some(IDLE))?;
    Ok(OwnedFd::from(socket).into())
}

/// Before more of the same work: a thousand clients that ask for lists, or ask on without reading, keep
/// every processor busy, and a single block would wait for all of them. So the slowest hundredth of
/// single blocks takes 1 to 4 ms meanwhile instead of 50 to 200; else it costs nothing that is seen.
fn let_others_go_first() {
    thread::yield_now();
}

/// One connection's state.
pub struct Connection<'a> {
    clients: &'a Clients,
    client: &'a Client,
    source: Source<'a>,
    /// The file that names peers.
    peers: Option<&'a Path>,
    timeout: Duration,
    log: Option<&'a Log>,
    /// Bytes received and not yet answered.
    input: Vec<u8>,
    /// Held while `input` has the room for the longest head.
    long_head: Option<Reservation<'a>>,
    head: Vec<u8>,
    /// `HEAD_ROOM`, then a block. Empty before the first block: most idle connections cost none.
    answer: Vec<u8>,
}

/// Where blocks come from: first from files, for what is not in them is known without a call to the
/// system.
struct Source<'a> {
    files: Option<&'a Files>,
    view: Option<View>,
    clients: &'a Clients,
}

impl Source<'_> {
    /// Reads a block; tells its length, or that it is absent. Where the machine is short of
    /// something, somebody silent makes room before the second try.
    fn read(&mut self, hash: &Hash, room: &mut [u8; READ_SIZE]) -> io::Result<Option<usize>> {
        let mut verified = Verified::default();
        let mut slot = Slot::over(room, &mut verified);
        if self.files.is_some_and(|files| files.read(hash, &mut slot)) {
            return Ok(slot.length());
        }
        let Some(view) = &mut self.view else {
            return Ok(None);
        };
        let mut read = view.read(hash, &mut slot);
        if read.is_err() {
            self.clients.wait_out_shortage();
            read = view.read(hash, &mut slot);
        }
        read.map(|_| slot.length())
    }
}

/// The hashes that a `POST /blocks` asked for, with the room that they take.
struct Hashes<'a> {
    hashes: Vec<Hash>,
    _room: Reservation<'a>,
    /// Bytes of the list that came with its head, and lie behind it in `Connection::input`.
    early: usize,
}

/// What was answered, for the log.
struct Answered {
    status: u16,
    /// Bytes of the body.
    sent: io::Result<usize>,
}

impl<'a> Connection<'a> {
    pub fn new(
        admitted: &'a Admitted,
        files: Option<&'a Files>,
        view: Option<View>,
        peers: Option<&'a Path>,
        timeout: Duration,
        log: Option<&'a Log>,
    ) -> Self {
        Connection {
            clients: &admitted.clients,
            client: &admitted.client,
            source: Source {
                files,
                view,
                clients: &admitted.clients,
            },
            peers,
            timeout,
            log,
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
        while let Some((mut request, length)) = self.next_request()? {
            let list = match self.read_list(&request, length) {
                Ok(list) => list,
                Err(Some(status)) => {
                    request = Request::broken(status);
                    None
                }
                Err(None) => return Ok(()),
            };
            self.client.begin_answer();
            let started = self.log.map(|log| (log, Instant::now()));
            let answered = self.answer(&request, list.as_ref().map_or(&[], |list| &list.hashes));
            if let Some((log, started)) = started {
                log.add(&self.line(length, &answered, started));
            }
            answered.sent?;
            self.client.end_answer();
            let asks_on = self.input.len() > length;
            self.input
                .drain(..length + list.map_or(0, |list| list.early));
            if !request.keep_alive {
                let nothing_follows = request.is_last && self.input.is_empty();
                return if nothing_follows {
                    Ok(())
                } else {
                    self.linger()
                };
            }
            if asks_on {
                let_others_go_first();
            }
            if self.input.len() < INPUT && self.long_head.take().is_some() {
                self.input.shrink_to(INPUT);
            }
        }
        Ok(())
    }

    /// Waits for a whole head, and tells its length. None where the connection ends.
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
            if self.input.len() >= INPUT && !self.lengthen_input() {
                let unavailable = Request::broken(Status::Unavailable);
                return Ok(Some((unavailable, self.input.len())));
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

    /// Makes room for the longest head, unless there is too little for all that have one.
    fn lengthen_input(&mut self) -> bool {
        if self.long_head.is_none() {
            self.long_head = self.clients.reserve(self.client, LONG_INPUT);
            if self.long_head.is_none() {
                return false;
            }
            let missing = LONG_INPUT.saturating_sub(self.input.len());
            self.input.reserve_exact(missing);
        }
        true
    }

    fn receive(&mut self) -> io::Result<usize> {
        let held = self.input.len();
        self.input.resize(held + INPUT, 0);
        let received = block::read_some(&mut self.stream(), &mut self.input[held..]);
        self.input.truncate(held + *received.as_ref().unwrap_or(&0));
        received
    }

    /// Reads the list behind a head of `head` bytes, if it is followed by one.
    ///
    /// # Errors
    /// The refusal that is due, or none where the client is gone.
    fn read_list(
        &mut self,
        request: &Request,
        head: usize,
    ) -> Result<Option<Hashes<'a>>, Option<Status>> {
        let Wanted::Blocks(list) = request.wanted else {
            return Ok(None);
        };
        let (stream, deadline) = (self.stream(), Instant::now() + self.timeout);
        let room = list.max_lines() * size_of::<Hash>();
        let room = self.clients.reserve(self.client, room);
        let room = room.ok_or(Status::Unavailable)?;
        let mut hashes = Vec::with_capacity(list.max_lines());
        let early = &self.input[head..];
        let early = &early[..early.len().min(list.length)];
        if list.awaits_continue && early.is_empty() && list.length > 0 {
            let told = send_all(stream, http::CONTINUE);
            told.map_err(|_| None)?;
        }
        // The answer's place is free as long as there is none.
        self.answer.resize(frames::buffer_size(1), 0);
        Body::new(stream, list.length, early, deadline, &mut self.answer).read_list(&mut hashes)?;
        if early.len() < list.length {
            let restored = stream.set_read_timeout(Some(IDLE));
            restored.map_err(|_| None)?;
        }
        Ok(Some(Hashes {
            hashes,
            _room: room,
            early: early.len(),
        }))
    }

    fn answer(&mut self, request: &Request, hashes: &[Hash]) -> Answered {
        self.head.clear();
        match request.wanted {
            Wanted::Block(hash) => self.answer_block(request, &hash),
            Wanted::Blocks(list) => self.answer_list(request, list, hashes),
            Wanted::NotAllowed(_) => self.refuse(request, Status::MethodNotAllowed),
            Wanted::Refusal(status) => self.refuse(request, status),
            Wanted::Index => {
                let body = http::push_found(&mut self.head, request, http::INDEX.as_bytes());
                self.send(200, &self.head, body)
            }
            Wanted::Peers => self.answer_peers(request),
        }
    }

    fn answer_block(&mut self, request: &Request, hash: &Hash) -> Answered {
        self.answer.resize(frames::buffer_size(1), 0);
        let read = match self.answer[HEAD_ROOM..].first_chunk_mut() {
            Some(room) => self.source.read(hash, room),
            None => Ok(None),
        };
        let length = match read {
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

    fn answer_peers(&mut self, request: &Request) -> Answered {
        let Some(path) = self.peers else {
            return self.refuse(request, Status::NotFound);
        };
        let text = match peers::read(path) {
            Ok(text) => text,
            Err(e) if sys::is_shortage(&e) => return self.refuse(request, Status::Unavailable),
            Err(_) => return self.refuse(request, Status::NotFound),
        };
        // The text, and its copy behind the head, which whoever does not read it may hold for long.
        let Some(_room) = self.clients.reserve(self.client, 2 * text.len()) else {
            return self.refuse(request, Status::Unavailable);
        };
        // Not in `head`, which stays as large as it once was.
        let mut answer = Vec::new();
        let body = http::push_found(&mut answer, request, &text);
        self.send(200, &answer, body)
    }

    /// Sends as many blocks at once as there is room for.
    fn answer_list(&mut self, request: &Request, list: List, hashes: &[Hash]) -> Answered {
        let large = (hashes.len() > 1).then(|| self.clients.buffers.borrow());
        if let Some(mut buffer) = large.flatten() {
            return self.send_list(request, list, hashes, &mut buffer);
        }
        let mut buffer = mem::take(&mut self.answer);
        buffer.resize(frames::buffer_size(1), 0);
        let answered = self.send_list(request, list, hashes, &mut buffer);
        self.answer = buffer;
        answered
    }

    fn send_list(
        &mut self,
        request: &Request,
        list: List,
        hashes: &[Hash],
        buffer: &mut [u8],
    ) -> Answered {
        let mut hashes = hashes.iter().peekable();
        let (mut body, status) = (0, 200);
        http::push_blocks_head(&mut self.head, request, list);
        loop {
            let mut frames = Frames::new(buffer);
            let_others_go_first();
            let read = frames.fill(&mut hashes, |hash, room| self.source.read(hash, room));
            match read {
                Ok(()) => {}
                // Nothing has been said yet.
                Err(_) if !self.head.is_empty() => {
                    self.head.clear();
                    return self.refuse(request, Status::Unavailable);
                }
                // What is there must not be told absent: the answer is cut off.
                Err(e) => {
                    return Answered {
                        status,
                        sent: Err(e),
                    };
                }
            }
            body += frames.len();
            let last = hashes.peek().is_none();
            let chunk = frames.finish(&mut self.head, list.chunked, last);
            let sent = send_all(self.stream(), chunk).map(|()| body);
            if last || sent.is_err() {
                return Answered { status, sent };
            }
            self.head.clear();
        }
    }

    fn refuse(&mut self, request: &Request, status: Status) -> Answered {
        let body = http::push_refusal(&mut self.head, request, status);
        self.send(status as u16, &self.head, body)
    }

    fn send(&self, status: u16, answer: &[u8], body: usize) -> Answered {
        let sent = send_all(self.stream(), answer).map(|()| body);
        Answered { status, sent }
    }

    /// The log's line of a request: client, request line, status, bytes of the body or - where the client
    /// was gone, microseconds. The request line is escaped, so that it cannot be taken for more.
    fn line(&self, length: usize, answered: &Answered, started: Instant) -> String {
        let head = self.input[..length].trim_ascii_start();
        let line = head.split(|&c| c == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(&line[..line.len().min(http::MAX_LINE)]);
        let sent = answered
            .sent
            .as_ref()
            .map_or("-".to_owned(), usize::to_string);
        let (client, micros) = (self.client.address, started.elapsed().as_micros());
        let status = answered.status;
        console::message(&format_args!("{client} {line:?} {status} {sent} {micros}"))
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
