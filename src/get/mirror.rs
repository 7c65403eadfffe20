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

use super::ask::is_passing;
use super::fetch::{Answered, Fault, Fetcher, Incoming};
use super::list::Wanted;
use super::servers::{Asked, Failure, Pace};
use super::url::Url;
use super::worker::Sink;
use crate::block::{BLOCK_SIZE, Block};
use crate::error::Result;
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
    answer: Incoming,
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
        fetcher: &Fetcher,
        url: &Url,
        wanted: &[Wanted],
        sink: &mut Sink,
    ) -> Result<Asked> {
        let mut asked = Asked::default();
        let mut left = wanted;
        let place = lock(&self.place).clone();
        let mut received = match &place {
            Some(place) => self.receive(fetcher, place, &mut left, sink, &mut asked),
            None => self.receive(fetcher, url, &mut left, sink, &mut asked),
        };
        if place.is_some() && matches!(received, Err(Fault::Failed(_))) {
            // The way may lead elsewhere by now, and somebody may know where.
            lock(&self.place).take_if(|known| Some(&*known) == place.as_ref());
            received = self.receive(fetcher, url, &mut left, sink, &mut asked);
        }
        match received {
            Ok(()) => {}
            Err(Fault::Failed(failure)) => asked.fail(left, failure),
            Err(Fault::Local(error)) => return Err(error),
        }
        Ok(asked)
    }

    fn receive(
        &self,
        fetcher: &Fetcher,
        url: &Url,
        left: &mut &[Wanted],
        sink: &mut Sink,
        asked: &mut Asked,
    ) -> Answered<()> {
        self.ask_for_ranges(fetcher, url, left, sink, asked)?;
        if left.is_empty() {
            return Ok(());
        }
        let turn = self.wait(left[0].number)?;
        let read = self.read(fetcher, url, left, sink, asked);
        if let Err(Fault::Failed(failure)) = &read
            && failure.at_once
        {
            let mut whole = lock(&self.whole);
            whole.silences += 1;
            whole.silence = Some(failure.clone());
        }
        drop(turn);
        read
    }

    /// Asks for what lies together with one request each, unless it turns out to send all of the file.
    fn ask_for_ranges(
        &self,
        fetcher: &Fetcher,
        url: &Url,
        left: &mut &[Wanted],
        sink: &mut Sink,
        asked: &mut Asked,
    ) -> Answered<()> {
        // One that gives less than it is asked for is asked for the rest.
        while !left.is_empty() && !lock(&self.whole).ignores_ranges {
            let (first, length) = neighbours(left);
            let (begun, before) = (Instant::now(), left.len());
            let answer = fetcher.range(url, first, Some(first + length - 1))?;
            let head = Instant::now();
            let Some(mut stream) = Stream::new(answer, first)? else {
                asked.lack(mem::take(left), "its copy of the file is shorter");
                return Ok(());
            };
            if stream.is_whole {
                let mut whole = lock(&self.whole);
                whole.ignores_ranges = true;
                whole.stream.get_or_insert(stream);
                break;
            }
            let place = stream.answer.place();
            if place != *url {
                *lock(&self.place) = Some(place);
            }
            stream.take(left, sink, asked)?;
            let blocks = before - left.len();
            if blocks == 0 {
                asked.lack(mem::take(left), "it gave less than a block");
                return Ok(());
            }
            asked.pace = Some(Pace {
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
    fn read(
        &self,
        fetcher: &Fetcher,
        url: &Url,
        left: &mut &[Wanted],
        sink: &mut Sink,
        asked: &mut Asked,
    ) -> Answered<()> {
        let (mut stream, is_beyond) = {
            let mut whole = lock(&self.whole);
            let first = left[0].offset();
            let is_beyond = whole.end.is_some_and(|end| first >= end);
            let stream = whole.stream.take_if(|_| !is_beyond);
            (stream.filter(|stream| stream.at <= first), is_beyond)
        };
        if let Some(stream) = stream.take_if(|stream| stream.at > 0) {
            match self.read_on(stream, left, sink, asked) {
                // What nobody read for a while may have been closed meanwhile.
                Err(Fault::Failed(failure)) if !failure.at_once => {}
                read => return read,
            }
        }
        if stream.is_none() && !is_beyond {
            let first = left[0].offset();
            // To the end, should it have come to understand ranges.
            let answer = fetcher.range(url, first, None)?;
            stream = Stream::new(answer, first)?;
        }
        let Some(stream) = stream else {
            asked.lack(left, "its copy of the file is shorter");
            return Ok(());
        };
        self.read_on(stream, left, sink, asked)
    }

    /// Reads what comes, and leaves the rest for later.
    fn read_on(
        &self,
        mut stream: Stream,
        left: &mut &[Wanted],
        sink: &mut Sink,
        asked: &mut Asked,
    ) -> Answered<()> {
        while let Some(next) = left.first().map(Wanted::offset) {
            stream.skip_to(next)?;
            stream.take(left, sink, asked)?;
            // What came before the end is no more than a part of what is next.
            if left.first().is_some_and(|next| next.offset() <= stream.at) || stream.at < next {
                break;
            }
        }
        stream.answer.account();
        let mut whole = lock(&self.whole);
        if left.is_empty() {
            whole.stream = Some(stream);
        } else {
            whole.end = Some(stream.at - stream.at % BLOCK_SIZE as u64);
            asked.lack(left, "its copy of the file is shorter");
        }
        Ok(())
    }

    /// Waits until nobody reads, and nobody waits who wants an earlier block of what still comes: to
    /// begin anew is left for when all have what they want of that.
    ///
    /// # Errors
    /// When it fell silent meanwhile, which is not to cost its time again.
    fn wait(&self, first: u64) -> std::result::Result<Turn<'_>, Failure> {
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
                Ok(Turn(self))
            }
        }
    }
}

/// The right to read, until dropped.
struct Turn<'a>(&'a Mirror);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.whole).taken = false;
        self.0.turn.notify_all();
    }
}

/// Where the first of `wanted` and those that follow it lie: the first byte, and how many.
fn neighbours(wanted: &[Wanted]) -> (u64, u64) {
    let together = wanted
        .iter()
        .zip(wanted[0].number..)
        .take_while(|(wanted, number)| wanted.number == *number);
    (
        wanted[0].offset(),
        together.count() as u64 * BLOCK_SIZE as u64,
    )
}

impl Stream {
    /// The body of an answer to a request for what begins at `offset`. None where the copy ends
    /// before that.
    fn new(mut answer: Incoming, offset: u64) -> Answered<Option<Self>> {
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
                return Err(Failure::strike(answer.refusal()?, is_passing(status)).into());
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
    fn take(&mut self, left: &mut &[Wanted], sink: &mut Sink, asked: &mut Asked) -> Answered<()> {
        loop {
            let neighbours: &[Wanted] = left;
            let Some((wanted, later)) = neighbours.split_first() else {
                return Ok(());
            };
            if self.at != wanted.offset() {
                return Ok(());
            }
            let (mut filled, mut failure) = (0, None);
            let given = sink.push(wanted, |room| {
                // What came before it broke off may be the last block, if a short one.
                failure = self.fill(&mut room[..BLOCK_SIZE]).err();
                filled = self.answer.filled();
                let mut length = filled;
                if wanted.last && Block::verify(&room[..filled], &wanted.hash).is_none() {
                    // The copy may go on after the file's end.
                    length = wanted.hash.length_in(&room[..filled]).unwrap_or(filled);
                }
                Ok::<_, Fault>(Block::verify(&room[..length], &wanted.hash))
            })?;
            let this = std::slice::from_ref(wanted);
            if given {
                asked.give();
            } else if let Some(failure) = failure {
                return Err(failure.into());
            } else if filled < BLOCK_SIZE {
                return Ok(());
            } else {
                asked.lack(this, "its copy of the file has other bytes there");
            }
            *left = later;
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, Failure> {
        let filled = self.answer.fill(buffer);
        let filled = filled.map_err(|e| self.answer.failure(&e))?;
        self.at += filled as u64;
        Ok(filled)
    }
}
