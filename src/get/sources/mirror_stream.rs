//! A mirror that ignores ranges: it sends all of the file, which is read as it streams, once if all
//! goes well. The worker that wants the block that comes first reads, and leaves the rest to the next.
//! A worker that comes too late for a block waits until all others have read what they want.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};

use super::mirror_body::{Body, SHORTER};
use super::visit::Visit;
use crate::block::BLOCK_SIZE;
use crate::get::block_ref::BlockRef;
use crate::get::client::failure::ServerFailure;
use crate::get::client::url::Url;
use crate::get::client::{RequestError, RequestResult, ServerResult};
use crate::mutex::{lock, unpoisoned};

/// The stream of one mirror. All workers share it.
#[derive(Default)]
pub struct MirrorStream {
    state: Mutex<State>,
    /// The stream is free, or another worker is next.
    turn: Condvar,
}

#[derive(Default)]
struct State {
    ignores_ranges: bool,
    /// Where the first block begins that the copy has not whole, once that is known.
    end: Option<u64>,
    /// The first block that each waiting worker wants.
    waiting: BTreeSet<u64>,
    taken: bool,
    /// Each failure where the mirror fell silent.
    silences: Vec<ServerFailure>,
    /// The rest of the last answer, while no worker reads it.
    body: Option<Body>,
}

impl State {
    /// The first block wanted by the worker whose turn is next.
    fn next(&self) -> Option<u64> {
        let at = self.body.as_ref().map_or(0, |body| body.at);
        let mut later = self.waiting.range(at / BLOCK_SIZE as u64..);
        later.next().or(self.waiting.first()).copied()
    }
}

impl MirrorStream {
    pub fn ignores_ranges(&self) -> bool {
        lock(&self.state).ignores_ranges
    }

    /// The mirror sent all of the file where a range was asked for.
    pub fn begin(&self, body: Body) {
        let mut state = lock(&self.state);
        state.ignores_ranges = true;
        state.body.get_or_insert(body);
    }

    /// Reads what the visit wants from `url`, when it is its turn.
    ///
    /// # Errors
    /// When there is no answer, or it breaks off or stops coming; and what fails on this machine.
    pub fn read(&self, url: &Url, visit: &mut Visit) -> RequestResult<()> {
        let _guard = self.wait(visit.left[0].number)?;
        let read = self.read_in_turn(url, visit);
        if let Err(RequestError::Server(failure)) = &read
            && failure.is_outage()
        {
            lock(&self.state).silences.push(failure.clone());
        }
        read
    }

    /// Waits until no worker reads, and none waits for an earlier block of what still comes: the next
    /// stream is begun when all have what they want of this one.
    ///
    /// # Errors
    /// When the mirror fell silent meanwhile, which must not cost its time again.
    fn wait(&self, first: u64) -> ServerResult<StreamGuard<'_>> {
        let mut state = lock(&self.state);
        let before = state.silences.len();
        state.waiting.insert(first);
        let is_early = |state: &mut State| state.taken || state.next() != Some(first);
        let mut state = unpoisoned(self.turn.wait_while(state, is_early));
        state.waiting.remove(&first);
        if let Some(silence) = state.silences[before..].last() {
            self.turn.notify_all();
            return Err(silence.clone());
        }
        state.taken = true;
        Ok(StreamGuard(self))
    }

    fn read_in_turn(&self, url: &Url, visit: &mut Visit) -> RequestResult<()> {
        let first = visit.left[0].offset();
        let body = {
            let mut state = lock(&self.state);
            if state.end.is_some_and(|end| first >= end) {
                visit.miss_rest(SHORTER);
                return Ok(());
            }
            state.body.take().filter(|body| body.at <= first)
        };
        if let Some(body) = body {
            let is_fresh = body.at == 0;
            match self.read_on(body, visit) {
                // What no worker read for a while may have been closed meanwhile.
                Err(RequestError::Server(failure)) if !is_fresh && !failure.is_outage() => {}
                read => return read,
            }
        }
        let first = visit.left[0].offset();
        // To the end, should the mirror have come to understand ranges.
        let answer = visit.client.range(url, first, None)?;
        match Body::open(answer, first)? {
            Some(body) => self.read_on(body, visit),
            None => {
                visit.miss_rest(SHORTER);
                Ok(())
            }
        }
    }

    /// Takes what the visit wants out of `body`, and leaves the rest of it to the next worker.
    fn read_on(&self, mut body: Body, visit: &mut Visit) -> RequestResult<()> {
        while let Some(next) = visit.left.first().map(BlockRef::offset) {
            body.skip_to(next)?;
            body.take(visit)?;
            let is_behind = |next: &BlockRef| next.offset() <= body.at;
            // What came before the end is no more than a part of what is next.
            if body.at < next || visit.left.first().is_some_and(is_behind) {
                break;
            }
        }
        body.answer.account();
        let mut state = lock(&self.state);
        if visit.left.is_empty() {
            state.body = Some(body);
        } else {
            state.end = Some(body.at - body.at % BLOCK_SIZE as u64);
            visit.miss_rest(SHORTER);
        }
        Ok(())
    }
}

/// The right to read, until dropped.
struct StreamGuard<'a>(&'a MirrorStream);

impl Drop for StreamGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).taken = false;
        self.0.turn.notify_all();
    }
}
