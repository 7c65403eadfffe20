//! Mirrors: plain copies of the whole file on any web server, read by byte ranges (RFC 9110, section
//! 14). What is not what it should be, since the copy is of another version, say, counts as not
//! there: a mirror has promised nothing.
//!
//! One that ignores ranges sends all of the file. It is then read as it streams, once if all goes
//! well: by whichever worker wants the block that comes first, who leaves the rest to the next. One
//! who comes too late for a block waits until all others have read what they want.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::outcome::{Outcome, Pace};
use crate::block::{self, BLOCK_SIZE};
use crate::error::Result;
use crate::get::block_ref::BlockRef;
use crate::get::client::failure::{Failure, is_transient};
use crate::get::client::url::Url;
use crate::get::client::{Answered, Client, Fault, Response};
use crate::get::output::sink::{Origin, Sink};
use crate::mutex::lock;

/// What is known of a mirror. Shared by all workers.
#[derive(Default)]
pub struct Mirror {
    /// Where redirects led to, so that not every request goes all the way.
    place: Mutex<Option<Url>>,
    whole: Mutex<Whole>,
    turn: Condvar,
}

/// How it is with a mirror that sends all of the file.
#[derive(Default)]
struct Whole {
    /// Whether it is one.
    ignores_ranges: bool,
    /// Where the first block begins that it has not got whole, once that is known.
    end: Option<u64>,
    /// The first blocks that are wanted by those who wait for their turns.
    waiting: BTreeSet<u64>,
    taken: bool,
    /// How often it fell silent, and why it was last said to.
    silences: u32,
    silence: Option<Failure>,
    /// What still comes, where nobody is at it.
    stream: Option<Stream>,
}

impl Whole {
    /// The first block wanted by the one whose turn is next.
    fn next(&self) -> Option<u64> {
        let at = self.stream.as_ref().map_or(0, |stream| stream.at);
        let mut later = self.waiting.range(at / BLOCK_SIZE as u64..);
        later.next().or(self.waiting.first()).copied()
    }
}

/// A body that begins with byte `at` of the file, perhaps as the whole of it.
struct Stream {
    answer: Response,
    at: u64,
    is_whole: bool,
}

impl Mirror {
    /// Asks for blocks in the order of the file.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn ask(
        &self,
        client: &Client,
        url: &Url,
        wanted: &[BlockRef],
        sink: &mut Sink,
    ) -> Result<Outcome> {
        let place = lock(&self.place).clone();
        let mut visit = Visit {
            mirror: self,
            client,
            url: place.as_ref().unwrap_or(url),
            sink,
            left: wanted,
            outcome: Outcome::default(),
        };
        let mut received = visit.receive();
        if place.is_some() && matches!(received, Err(Fault::Failed(_))) {
            // The way may lead elsewhere by now, and somebody may know where.
            lock(&self.place).take_if(|known| Some(&*known) == place.as_ref());
            visit.url = url;
            received = visit.receive();
        }
        match received {
            Ok(()) => {}
            Err(Fault::Failed(failure)) => visit.outcome.fail(visit.left, failure),
            Err(Fault::Local(error)) => return Err(error),
        }
        Ok(visit.outcome)
    }

    /// Waits until nobody reads, and nobody waits who wants an earlier block of what still comes: to
    /// begin anew is left for when all have what they want of that.
    ///
    /// # Errors
    /// When it fell silent meanwhile, which is not to cost its time again.
    fn wait(&self, first: u64) -> std::result::Result<StreamGuard<'_>, Failure> {
        let mut whole = lock(&self.whole);
        let before = whole.silences;
        whole.waiting.insert(first);
        while whole.taken || whole.next() != Some(first) {
            whole = self
                .turn
                .wait(whole)
                .unwrap_or_else(PoisonError::into_inner);
        }
        whole.waiting.remove(&first);
        match &whole.silence {
            Some(silence) if whole.silences != before => {
                self.turn.notify_all();
                Err(silence.clone())
            }
            _ => {
                whole.taken = true;
                Ok(StreamGuard(self))
            }
        }
    }
}

/// One time that a mirror is asked.
struct Visit<'a, 's> {
    mirror: &'a Mirror,
    client: &'a Client,
    url: &'a Url,
    sink: &'a mut Sink<'s>,
    /// Of what is wanted, what is still to come.
    left: &'a [BlockRef],
    outcome: Outcome,
}

impl Visit<'_, '_> {
    fn receive(&mut self) -> Answered<()> {
        self.ask_for_ranges()?;
        if self.left.is_empty() {
            return Ok(());
        }
        let turn = self.mirror.wait(self.left[0].number)?;
        let read = self.read();
        if let Err(Fault::Failed(failure)) = &read
            && failure.is_outage()
        {
            let mut whole = lock(&self.mirror.whole);
            whole.silences += 1;
            whole.silence = Some(failure.clone());
        }
        drop(turn);
        read
    }

    /// Asks for what lies together with one request each, unless it turns out to send all of the file.
    fn ask_for_ranges(&mut self) -> Answered<()> {
        // One that gives less than it is asked for is asked for the rest.
        while !self.left.is_empty() && !lock(&self.mirror.whole).ignores_ranges {
            let (first, length) = neighbours(self.left);
            let (begun, before) = (Instant::now(), self.left.len());
            let answer = self
                .client
                .range(self.url, first, Some(first + length - 1))?;
            let head = Instant::now();
            let Some(mut stream) = Stream::new(answer, first)? else {
                let left = mem::take(&mut self.left);
                self.outcome.miss(left, "its copy of the file is shorter");
                return Ok(());
            };
            if stream.is_whole {
                let mut whole = lock(&self.mirror.whole);
                whole.ignores_ranges = true;
                whole.stream.get_or_insert(stream);
                break;
            }
            let place = stream.answer.place();
            if place != *self.url {
                *lock(&self.mirror.place) = Some(place);
            }
            stream.take(self)?;
            let blocks = before - self.left.len();
            if blocks == 0 {
                let left = mem::take(&mut self.left);
                self.outcome.miss(left, "it gave less than a block");
                return Ok(());
            }
            self.outcome.pace = Some(Pace {
                blocks,
                body: head.elapsed(),
                whole: begun.elapsed(),
            });
            // Its connection can be used again, unless the end is still to be waited for.
            if stream.answer.length() == Some(stream.at - first) {
                let _ = stream.answer.ends();
            }
        }
        Ok(())
    }

    /// Reads from one that sends all of the file.
    fn read(&mut self) -> Answered<()> {
        let (mut stream, is_beyond) = {
            let mut whole = lock(&self.mirror.whole);
            let first = self.left[0].offset();
            let is_beyond = whole.end.is_some_and(|end| first >= end);
            let stream = whole.stream.take_if(|_| !is_beyond);
            (stream.filter(|stream| stream.at <= first), is_beyond)
        };
        if let Some(stream) = stream.take_if(|stream| stream.at > 0) {
            match self.read_on(stream) {
                // What nobody read for a while may have been closed meanwhile.
                Err(Fault::Failed(failure)) if !failure.is_outage() => {}
                read => return read,
            }
        }
        if stream.is_none() && !is_beyond {
            let first = self.left[0].offset();
            // To the end, should it have come to understand ranges.
            let answer = self.client.range(self.url, first, None)?;
            stream = Stream::new(answer, first)?;
        }
        let Some(stream) = stream else {
            self.outcome
                .miss(self.left, "its copy of the file is shorter");
            return Ok(());
        };
        self.read_on(stream)
    }

    /// Reads what comes, and leaves the rest for later.
    fn read_on(&mut self, mut stream: Stream) -> Answered<()> {
        while let Some(next) = self.left.first().map(BlockRef::offset) {
            stream.skip_to(next)?;
            stream.take(self)?;
            // What came before the end is no more than a part of what is next.
            if self
                .left
                .first()
                .is_some_and(|next| next.offset() <= stream.at)
                || stream.at < next
            {
                break;
            }
        }
        stream.answer.account();
        let mut whole = lock(&self.mirror.whole);
        if self.left.is_empty() {
            whole.stream = Some(stream);
        } else {
            whole.end = Some(stream.at - stream.at % BLOCK_SIZE as u64);
            self.outcome
                .miss(self.left, "its copy of the file is shorter");
        }
        Ok(())
    }
}

/// The right to read, until dropped.
struct StreamGuard<'a>(&'a Mirror);

impl Drop for StreamGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.whole).taken = false;
        self.0.turn.notify_all();
    }
}

/// Where the first of `wanted` and those that follow it lie: the first byte, and how many.
fn neighbours(wanted: &[BlockRef]) -> (u64, u64) {
    let together = wanted
        .iter()
        .zip(wanted[0].number..)
        .take_while(|(wanted, number)| wanted.number == *number);
    (wanted[0].offset(), block::offset(together.count() as u64))
}

impl Stream {
    /// The body of an answer to a request for what begins at `offset`. None where the copy ends
    /// before that.
    fn new(mut answer: Response, offset: u64) -> Answered<Option<Self>> {
        let is_whole = answer.status() == 200;
        let at = match answer.status() {
            200 => 0,
            206 if answer.range_start() == Some(offset) => offset,
            206 => return Err(Failure::strike("it gave another range", false).into()),
            416 => {
                answer.refusal()?;
                return Ok(None);
            }
            status => {
                return Err(Failure::strike(answer.refusal()?, is_transient(status)).into());
            }
        };
        Ok(Some(Stream {
            answer,
            at,
            is_whole,
        }))
    }

    fn skip_to(&mut self, offset: u64) -> Answered<()> {
        // Blocks all of them: an offset is that of a block.
        while self.at < offset && self.fill(&mut [0; BLOCK_SIZE])? > 0 {}
        Ok(())
    }

    /// Takes blocks, as long as they come.
    fn take(&mut self, visit: &mut Visit) -> Answered<()> {
        loop {
            let Some((wanted, later)) = visit.left.split_first() else {
                return Ok(());
            };
            if self.at != wanted.offset() {
                return Ok(());
            }
            let mut slot = visit.sink.slot(wanted, Origin::Fetched);
            // What came before it broke off may be the last block, if a short one.
            let failure = self.fill(&mut slot.room()[..BLOCK_SIZE]).err();
            let filled = self.answer.filled();
            // The copy may go on after the file's end.
            wanted.accept(filled, &mut slot);
            let given = visit.sink.commit()?;
            let this = std::slice::from_ref(wanted);
            if given {
                visit.outcome.hit();
            } else if let Some(failure) = failure {
                return Err(failure.into());
            } else if filled < BLOCK_SIZE {
                return Ok(());
            } else {
                visit
                    .outcome
                    .miss(this, "its copy of the file has other bytes there");
            }
            visit.left = later;
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, Failure> {
        let filled = self.answer.fill(buffer)?;
        self.at += filled as u64;
        Ok(filled)
    }
}
