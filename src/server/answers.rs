//! Answers: what a request gets, and sending it. Blocks come out of `Files` and through a `View` of the
//! block directory.
//!
//! This file owns the rule that each block is read and hashed just before it is sent. It writes no file.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::thread;

use super::clients::{Admitted, Clients, Reservation};
use super::files::Files;
use super::http::{self, List, Request, Status, Wanted};
use super::list;
use super::output::{self, HEAD_ROOM, Output};
use super::peers;
use super::socket;
use crate::block::{READ_SIZE, Slot, Verified};
use crate::hash::{HASH_LEN, Hash};
use crate::store::View;
use crate::sys;

/// Blocks of a list that one write sends, at most. Twice as many cost the processor as much for each.
const MAX_CHUNK: usize = 16;

/// Gives way before more of the same work. A thousand clients that ask for lists, or ask on without
/// reading, keep every processor busy, and a single block would wait for all of them. This way the slowest
/// hundredth of single blocks takes 1 to 4 ms meanwhile instead of 50 to 200, at no measurable cost.
pub fn let_others_go_first() {
    thread::yield_now();
}

/// Where blocks come from. Files are first: their indexes say without a system call what they lack.
struct Source<'a> {
    files: Option<&'a Files>,
    view: Option<View>,
    clients: &'a Clients,
}

impl Source<'_> {
    /// Reads a block; returns its length, or none where it is absent. Where the machine is short of
    /// something, idle clients make room before the second try.
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

/// Bytes of the body that were sent.
type Sent = io::Result<usize>;

/// An answer, for the log.
pub struct Answered {
    pub status: Status,
    pub sent: Sent,
}

/// Answers a connection's requests.
pub struct Answers<'a> {
    stream: &'a TcpStream,
    source: Source<'a>,
    /// The file that names peers.
    peers: Option<&'a Path>,
    output: Output,
    /// For what an answer takes beyond one block.
    reservation: Reservation<'a>,
}

impl<'a> Answers<'a> {
    pub fn new(
        admitted: &'a Admitted,
        files: Option<&'a Files>,
        view: Option<View>,
        peers: Option<&'a Path>,
    ) -> Self {
        Answers {
            stream: &admitted.client.stream,
            source: Source {
                files,
                view,
                clients: &admitted.clients,
            },
            peers,
            output: Output::default(),
            reservation: Reservation::new(admitted),
        }
    }

    /// Answers `request`; `parsed` holds the hashes of its list.
    pub fn answer(&mut self, request: &Request, parsed: &[u8]) -> Answered {
        let sent = match request.wanted {
            Wanted::Block(hash) => self.send_block(request, &hash),
            Wanted::Blocks(list) => self.send_blocks(request, list, parsed),
            Wanted::Peers => self.send_peers(request),
            Wanted::Index => Ok(self.send_text(request, Status::OK, http::INDEX.as_bytes())),
            Wanted::NotAllowed(_) => Err(Status::METHOD_NOT_ALLOWED),
            Wanted::Refusal(status) => Err(status),
        };
        let (status, sent) = match sent {
            Ok(sent) => (Status::OK, sent),
            Err(status) => {
                let text = status.text();
                (status, self.send_text(request, status, text.as_bytes()))
            }
        };
        Answered { status, sent }
    }

    fn send_block(&mut self, request: &Request, hash: &Hash) -> Result<Sent, Status> {
        self.output.resize(1);
        let source = &mut self.source;
        let read = self.output.read_block(|room| source.read(hash, room));
        let length = read.map_err(|_| Status::UNAVAILABLE)?;
        let length = length.ok_or(Status::NOT_FOUND)?;
        let mut head = Vec::with_capacity(HEAD_ROOM);
        http::push_block_head(&mut head, request, hash, length);
        if request.head_only {
            self.output.clear();
        }
        let body = self.output.len();
        let sent = socket::send_all(self.stream, self.output.with_head(&head));
        Ok(sent.map(|()| body))
    }

    fn send_peers(&mut self, request: &Request) -> Result<Sent, Status> {
        let text = peers::read(self.peers.ok_or(Status::NOT_FOUND)?);
        let text = text.map_err(|e| match sys::is_shortage(&e) {
            true => Status::UNAVAILABLE,
            false => Status::NOT_FOUND,
        })?;
        // The text, and its copy behind the head: a client that does not read may hold both for long.
        if !self.reservation.grow(2 * text.len()) {
            return Err(Status::UNAVAILABLE);
        }
        let sent = self.send_text(request, Status::OK, &text);
        self.reservation.shrink(0);
        Ok(sent)
    }

    /// Sends as many blocks at once as the budget has room for.
    fn send_blocks(
        &mut self,
        request: &Request,
        list: List,
        parsed: &[u8],
    ) -> Result<Sent, Status> {
        let most = (parsed.len() / HASH_LEN).min(MAX_CHUNK);
        let is_large = most > 1 && self.reservation.grow_if_spare(output::size(most));
        self.output.resize(if is_large { most } else { 1 });
        let sent = self.send_chunks(request, list, parsed);
        self.output.resize(1);
        self.reservation.shrink(0);
        sent
    }

    fn send_chunks(
        &mut self,
        request: &Request,
        list: List,
        parsed: &[u8],
    ) -> Result<Sent, Status> {
        let mut hashes = list::hashes(parsed).peekable();
        let mut head = Vec::with_capacity(HEAD_ROOM);
        let mut body = 0;
        http::push_blocks_head(&mut head, request, list);
        loop {
            let_others_go_first();
            let source = &mut self.source;
            let read = |hash: &Hash, room: &mut _| source.read(hash, room);
            match self.output.read_frames(&mut hashes, read) {
                Ok(()) => {}
                // Before the first byte of the answer.
                Err(_) if !head.is_empty() => return Err(Status::UNAVAILABLE),
                // The answer breaks off: its client must not take a present block for an absent one.
                Err(e) => return Ok(Err(e)),
            }
            body += self.output.len();
            let last = hashes.peek().is_none();
            let chunk = if list.chunked {
                self.output.with_head_in_chunk(&mut head, last)
            } else {
                self.output.with_head(&head)
            };
            let sent = socket::send_all(self.stream, chunk);
            if last || sent.is_err() {
                return Ok(sent.map(|()| body));
            }
            head.clear();
            self.output.clear();
        }
    }

    fn send_text(&self, request: &Request, status: Status, text: &[u8]) -> Sent {
        let mut answer = Vec::with_capacity(HEAD_ROOM);
        let body = http::push_text(&mut answer, request, status, text);
        socket::send_all(self.stream, &answer).map(|()| body)
    }
}
