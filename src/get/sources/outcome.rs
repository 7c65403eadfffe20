//! What came of asking one server for some blocks: told by those that ask, weighed by `servers.rs`.

use std::fmt::Display;
use std::time::Duration;

use crate::get::block_ref::BlockRef;
use crate::get::client::failure::Failure;

/// Wrong answers in a row after which a server is given up.
pub const STRIKES: u32 = 3;

/// What came of asking one server for some blocks.
#[derive(Default)]
pub struct Outcome {
    /// The blocks that it did not give, in order.
    pub rest: Vec<BlockRef>,
    pub given: usize,
    /// Whether it said plainly of a block that it has not got it.
    pub lacks: bool,
    /// Why it did not give the last of `rest`.
    pub reason: Option<String>,
    /// Those since the last block that it gave or has not got.
    pub failures: Vec<Failure>,
    pub batch_refusal: Option<BatchRefusal>,
    pub pace: Option<Pace>,
}

/// A server does not answer requests for many blocks as it should, which is no failure: it is asked
/// for each block instead.
#[derive(Clone, Copy, PartialEq)]
pub enum BatchRefusal {
    /// It may do so later.
    Temporary,
    Permanent,
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

impl Outcome {
    pub fn hit(&mut self) {
        self.given += 1;
        self.failures.clear();
    }

    pub fn miss(&mut self, wanted: &[BlockRef], reason: impl Display) {
        self.rest.extend_from_slice(wanted);
        self.lacks = true;
        self.reason = Some(reason.to_string());
        self.failures.clear();
    }

    pub fn fail(&mut self, wanted: &[BlockRef], failure: Failure) {
        self.rest.extend_from_slice(wanted);
        self.reason = Some(failure.reason.clone());
        self.failures.push(failure);
    }

    pub fn refuse_batch(&mut self, wanted: &[BlockRef], unfit: BatchRefusal) {
        self.rest.extend_from_slice(wanted);
        self.batch_refusal = Some(unfit);
    }

    /// Whether so much was wrong that there is no use in reading on.
    pub fn reached_strike_limit(&self) -> bool {
        self.failures.len() >= STRIKES as usize
    }
}
