//! What a request is answered with, and sending it. Blocks are read out of `Files` and through a `View` of
//! the block directory, each read and hashed just before it is sent; nothing is ever written.

use std::io;
use std::path::Path;
use std::thread;

use super::clients::{Client, Clients, Reservation};
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

/// Blocks of a list that are sent with one write, at most. With twice as many a block costs the processor
/// as much.
const MAX_CHUNK: usize = 16;

/// Before more of the same work: a thousand clients that ask for lists, or ask on without reading, keep
/// every processor busy, and a single block would wait for all of them. So the slowest hundredth of
/// single blocks takes 1 to 4 ms meanwhile instead of 50 to 200; else it costs nothing that is seen.
pub fn let_others_go_first() {
    thread::yield_now();
}

/// Where blocks come from: first from files, for what is not in them is known without a call to the
/// system.
pub struct Source<'a> {
    pub files: Option<&'a Files>,
    pub view: Option<View>,
    pub clients: &'a Clients,
}

impl Source<'_> {
    /// Reads a block; tells its length, or none where it is absent. Where the machine is short of
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

/// What was answered, for the log.
pub struct Answered {
    pub status: u16,
    /// Bytes of the body.
    pub sent: io::Result<usize>,
}

/// Answers a connection's requests.
pub struct Answers<'a> {
    client: &'a Client,
    source: Source<'a>,
    /// The file that names peers.
    peers: Option<&'a Path>,
    output: Output,
    /// What an answer takes beyond one block.
    reservation: Reservation<'a>,
}

impl<'a> Answers<'a> {
    pub fn new(client: &'a Client, source: Source<'a>, peers: Option<&'a Path>) -> Self {
        Answers {
            client,
            peers,
            output: Output::default(),
            reservation: Reservation::new(source.clients, client),
            source,
        }
    }

    /// Answers `request`, whose list was `parsed`.
    pub fn answer(&mut self, request: &Request, parsed: &[u8]) -> Answered {
        match request.wanted {
            Wanted::Block(hash) => self.answer_block(request, &hash),
            Wanted::Blocks(list) => self.answer_list(request, list, parsed),
            Wanted::NotAllowed(_) => self.refuse(request, Status::MethodNotAllowed),
            Wanted::Refusal(status) => self.refuse(request, status),
            Wanted::Index => self.answer_text(request, http::INDEX.as_bytes()),
            Wanted::Peers => self.answer_peers(request),
        }
    }

    fn answer_block(&mut self, request: &Request, hash: &Hash) -> Answered {
        self.output.resize(1);
        let source = &mut self.source;
        let length = match self.output.read_block(|room| source.read(hash, room)) {
            Ok(Some(length)) => length,
            Ok(None) => return self.refuse(request, Status::NotFound),
            Err(_) => return self.refuse(request, Status::Unavailable),
        };
        let mut head = Vec::with_capacity(HEAD_ROOM);
        http::push_block_head(&mut head, request, hash, length);
        if request.head_only {
            return self.send(200, &head, 0);
        }
        let sent = socket::send_all(&self.client.stream, self.output.with_head(&head));
        Answered {
            status: 200,
            sent: sent.map(|()| length),
        }
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
        // The text, and its copy behind the head, which a client that does not read may hold for long.
        if !self.reservation.grow(2 * text.len()) {
            return self.refuse(request, Status::Unavailable);
        }
        let answered = self.answer_text(request, &text);
        self.reservation.shrink(0);
        answered
    }

    fn answer_text(&self, request: &Request, text: &[u8]) -> Answered {
        let mut answer = Vec::with_capacity(HEAD_ROOM);
        let body = http::push_found(&mut answer, request, text);
        self.send(200, &answer, body)
    }

    /// Sends as many blocks at once as there is room for.
    fn answer_list(&mut self, request: &Request, list: List, parsed: &[u8]) -> Answered {
        let most = (parsed.len() / HASH_LEN).min(MAX_CHUNK);
        let is_large = most > 1 && self.reservation.grow_if_spare(output::size(most));
        self.output.resize(if is_large { most } else { 1 });
        let answered = self.send_list(request, list, parsed);
        if is_large {
            self.output.resize(1);
            self.reservation.shrink(0);
        }
        answered
    }

    fn send_list(&mut self, request: &Request, list: List, parsed: &[u8]) -> Answered {
        let mut hashes = list::hashes(parsed).peekable();
        let mut head = Vec::with_capacity(HEAD_ROOM);
        let (mut body, status) = (0, 200);
        http::push_blocks_head(&mut head, request, list);
        loop {
            let_others_go_first();
            let source = &mut self.source;
            let read = |hash: &Hash, room: &mut _| source.read(hash, room);
            match self.output.read_frames(&mut hashes, read) {
                Ok(()) => {}
                // Nothing has been sent yet.
                Err(_) if !head.is_empty() => return self.refuse(request, Status::Unavailable),
                // No block that is there may be called absent: the answer is cut off.
                Err(e) => {
                    return Answered {
                        status,
                        sent: Err(e),
                    };
                }
            }
            body += self.output.len();
            let last = hashes.peek().is_none();
            let chunk = if list.chunked {
                self.output.with_head_in_chunk(&mut head, last)
            } else {
                self.output.with_head(&head)
            };
            let sent = socket::send_all(&self.client.stream, chunk).map(|()| body);
            if last || sent.is_err() {
                return Answered { status, sent };
            }
            head.clear();
            self.output.clear();
        }
    }

    fn refuse(&self, request: &Request, status: Status) -> Answered {
        let mut answer = Vec::with_capacity(HEAD_ROOM);
        let body = http::push_refusal(&mut answer, request, status);
        self.send(status as u16, &answer, body)
    }

    fn send(&self, status: u16, answer: &[u8], body: usize) -> Answered {
        let sent = socket::send_all(&self.client.stream, answer).map(|()| body);
        Answered { status, sent }
    }
}
