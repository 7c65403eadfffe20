//! What came of asking one server for some blocks: told by whoever asked, weighed by `get/servers.rs`.

use std::fmt::Display;
use std::time::Duration;

use super::list::Wanted;

/// Wrong answers in a row after which a server is given up.
pub const STRIKES: u32 = 3;

/// What came of asking one server for some blocks.
#[derive(Default)]
pub struct Asked {
    /// The blocks that it did not give, in order.
    pub rest: Vec<Wanted>,
    pub given: usize,
    /// Whether it said plainly of a block that it has not got it.
    pub lacks: bool,
    /// Why it did not give the last of `rest`.
    pub reason: Option<String>,
    /// Those since the last block that it gave or has not got.
    pub failures: Vec<Failure>,
    pub unfit: Option<Unfit>,
    pub pace: Option<Pace>,
}

/// A server does not answer requests for many blocks as it should, which is no failure: it is asked
/// for each block instead.
#[derive(Clone, Copy, PartialEq)]
pub enum Unfit {
    /// It may do so later.
    Now,
    Ever,
}

/// How quickly a run came.
#[derive(Clone, Copy)]
pub struct Pace {
    pub blocks: usize,
    /// From the head of the answer to its end.
    pub body: Duration,
    /// From the request on.
    pub whole: Duration,
}

impl Asked {
    pub fn give(&mut self) {
        self.given += 1;
        self.failures.clear();
    }

    pub fn lack(&mut self, wanted: &[Wanted], reason: impl Display) {
        self.rest.extend_from_slice(wanted);
        self.lacks = true;
        self.reason = Some(reason.to_string());
        self.failures.clear();
    }

    pub fn fail(&mut self, wanted: &[Wanted], failure: Failure) {
        self.rest.extend_from_slice(wanted);
        self.reason = Some(failure.reason.clone());
        self.failures.push(failure);
    }

    pub fn misfit(&mut self, wanted: &[Wanted], unfit: Unfit) {
        self.rest.extend_from_slice(wanted);
        self.unfit = Some(unfit);
    }

    /// Whether so much was wrong that there is no use in reading on.
    pub fn is_hopeless(&self) -> bool {
        self.failures.len() >= STRIKES as usize
    }
}

/// An answer that is neither a block nor a plain no.
#[derive(Clone, Debug)]
pub struct Failure {
    pub reason: String,
    /// No connection, or silence: the server is given up at once. Else it is one strike.
    pub at_once: bool,
    /// Silence, which may be a request's fault.
    pub silent: bool,
    /// Whether the same server may do better a little later.
    pub passing: bool,
}

impl Failure {
    /// No connection.
    pub fn gone(reason: impl Display) -> Self {
        Failure {
            at_once: true,
            ..Failure::strike(reason, true)
        }
    }

    /// A connection on which nothing comes.
    pub fn silent(reason: impl Display) -> Self {
        Failure {
            silent: true,
            ..Failure::gone(reason)
        }
    }

    /// A wrong answer.
    pub fn strike(reason: impl Display, passing: bool) -> Self {
        Failure {
            reason: reason.to_string(),
            at_once: false,
            silent: false,
            passing,
        }
    }

    /// Whether there was an answer that made no sense.
    pub fn is_misunderstanding(&self) -> bool {
        !self.at_once && !self.passing
    }
}
