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
use super::http::{self, Interruption, ListHead, Request, Status, Wanted};
use super::list;
use super::output::{self, HEAD_ROOM, Output};
use super::peers;
use super::socket;
use crate::block::{READ_SIZE, Slot, Verified};
use crate::frames::{self, LENGTH};
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

/// What a connection reads from. Blocks come from `files` first, whose indexes say without a system call
/// what they lack.
pub struct Source<'a> {
    pub files: Option<&'a Files>,
    pub view: Option<View>,
    /// The file that names peers.
    pub peers: Option<&'a Path>,
    pub clients: &'a Clients,
}

impl Source<'_> {
    /// Reads a block; returns its length, or none where it is absent. Where the machine is short of
    /// something, idle clients make room before the second try.
    fn read(&mut self, hash: &Hash, room: &mut [u8; READ_SIZE]) -> io::Result<Option<usize>> {
        let mut verified = Verified::default();
        let mut slot = Slot::over(room, &mut verified);
        let in_files = self.files.is_some_and(|files| files.read(hash, &mut slot));
        if !in_files
            && let Some(view) = &mut self.view
            && view.read(hash, &mut slot).is_err()
        {
            self.clients.make_room_and_pause();
            view.read(hash, &mut slot)?;
        }
        Ok(slot.length())
    }
}

/// Bytes of the body that were sent.
type Sent = Result<usize, Interruption>;

/// An answer, for the log.
pub struct Answered {
    pub status: Status,
    /// Bytes of the body.
    pub sent: io::Result<usize>,
}

/// Answers a connection's requests.
pub struct Answers<'a> {
    stream: &'a TcpStream,
    source: Source<'a>,
    output: Output,
    /// For what an answer takes beyond one block.
    reservation: Reservation<'a>,
}

impl<'a> Answers<'a> {
    pub fn new(admitted: &'a Admitted, source: Source<'a>) -> Self {
        Answers {
            stream: &admitted.client.stream,
            source,
            output: Output::default(),
            reservation: Reservation::new(admitted),
        }
    }

    /// Answers `request`; `hashes` are those of its list, one after the other.
    pub fn answer(&mut self, request: &Request, hashes: &[u8]) -> Answered {
        let sent = self.send(request, hashes);
        self.output.shrink();
        self.reservation.shrink(0);
        let (status, sent) = match sent {
            Ok(body) => (Status::OK, Ok(body)),
            Err(Interruption::Disconnected(e)) => (Status::OK, Err(e)),
            Err(Interruption::Refused(status)) => {
                let text = status.text();
                (status, self.send_text(request, status, text.as_bytes()))
            }
        };
        Answered { status, sent }
    }

    fn send(&mut self, request: &Request, hashes: &[u8]) -> Sent {
        match request.wanted {
            Wanted::Block(hash) => self.send_block(request, &hash),
            Wanted::Blocks(list) => self.send_blocks(request, list, hashes),
            Wanted::Peers => self.send_peers(request),
            Wanted::Index => Ok(self.send_text(request, Status::OK, http::INDEX.as_bytes())?),
            Wanted::NotAllowed(_) => Err(Status::METHOD_NOT_ALLOWED.into()),
            Wanted::Refusal(status) => Err(status.into()),
        }
    }

    fn send_block(&mut self, request: &Request, hash: &Hash) -> Sent {
        self.output.make_room(1);
        let room = self.output.room(0).ok_or(Status::UNAVAILABLE)?;
        let read = self.source.read(hash, room);
        let length = read.map_err(|_| Status::UNAVAILABLE)?;
        let length = length.ok_or(Status::NOT_FOUND)?;
        let mut head = Vec::with_capacity(HEAD_ROOM);
        http::push_block_head(&mut head, request, hash, length);
        if !request.head_only {
            self.output.push(b"", length);
        }
        let body = self.output.len();
        socket::send_all(self.stream, self.output.with_head(&head))?;
        Ok(body)
    }

    fn send_peers(&mut self, request: &Request) -> Sent {
        let text = peers::read(self.source.peers.ok_or(Status::NOT_FOUND)?);
        let text = text.map_err(|e| match sys::is_shortage(&e) {
            true => Status::UNAVAILABLE,
            false => Status::NOT_FOUND,
        })?;
        // The text, and its copy behind the head: a client that does not read may hold both for long.
        if !self.reservation.grow(2 * text.len()) {
            return Err(Status::UNAVAILABLE.into());
        }
        Ok(self.send_text(request, Status::OK, &text)?)
    }

    /// Sends as many blocks at once as the budget has room for.
    fn send_blocks(&mut self, request: &Request, list: ListHead, hashes: &[u8]) -> Sent {
        let most = (hashes.len() / HASH_LEN).min(MAX_CHUNK);
        let is_large = most > 1 && self.reservation.grow_if_spare(output::size(most));
        self.output.make_room(if is_large { most } else { 1 });
        let mut hashes = list::hashes(hashes);
        let mut head = Vec::with_capacity(HEAD_ROOM);
        let mut body = 0;
        http::push_blocks_head(&mut head, request, list);
        loop {
            let_others_go_first();
            match self.read_frames(&mut hashes) {
                Ok(()) => {}
                // Before the first byte of the answer.
                Err(_) if !head.is_empty() => return Err(Status::UNAVAILABLE.into()),
                // The answer breaks off: its client must not take a present block for an absent one.
                Err(e) => return Err(e.into()),
            }
            body += self.output.len();
            let last = hashes.len() == 0;
            let chunk = if list.chunked {
                self.output.with_head_in_chunk(&mut head, last)
            } else {
                self.output.with_head(&head)
            };
            socket::send_all(self.stream, chunk)?;
            if last {
                return Ok(body);
            }
            head.clear();
            self.output.clear();
        }
    }

    /// Appends the frames of the next of `hashes`, as many as fit.
    fn read_frames(&mut self, hashes: &mut impl Iterator<Item = Hash>) -> io::Result<()> {
        while let Some(room) = self.output.room(LENGTH) {
            let Some(hash) = hashes.next() else {
                break;
            };
            let length = self.source.read(&hash, room)?.unwrap_or(0);
            self.output.push(&frames::encode_length(length), length);
        }
        Ok(())
    }

    fn send_text(&self, request: &Request, status: Status, text: &[u8]) -> io::Result<usize> {
        let mut answer = Vec::with_capacity(HEAD_ROOM);
        let body = http::push_text(&mut answer, request, status, text);
        socket::send_all(self.stream, &answer).map(|()| body)
    }
}
