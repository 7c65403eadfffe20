//! What one request to one server is, and what it brought: `blocks.rs` and the mirrors report it,
//! `health.rs` judges it.

use std::fmt::Display;
use std::time::Duration;

use crate::get::block_ref::BlockRef;
use crate::get::client::failure::Failure;

/// Wrong answers in a row after which a server is given up.
pub const STRIKES: u32 = 3;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RequestKind {
    /// For one block.
    Single,
    /// For many blocks at once.
    Batch,
    /// For parts of the whole file: the mirror of this number.
    Range(usize),
}

/// What one request brought.
#[derive(Default)]
pub struct Outcome {
    /// The blocks that the server did not give, in order.
    pub rest: Vec<BlockRef>,
    pub given: usize,
    /// Whether the server said of a block that it lacks it.
    pub lacks: bool,
    /// Why the server did not give the last of `rest`.
    pub reason: Option<String>,
    /// The failures since the last block that the server gave or lacks.
    pub failures: Vec<Failure>,
    pub batch_refusal: Option<BatchRefusal>,
    pub pace: Option<Pace>,
}

/// Blocks that no server gave. `transient`: a server may give them a little later.
#[derive(Default)]
pub struct Missing {
    pub blocks: Vec<BlockRef>,
    pub transient: bool,
}

/// The server does not answer a batch as it should. That is no failure: the server is asked for single
/// blocks instead.
#[derive(Clone, Copy, PartialEq)]
pub enum BatchRefusal {
    /// It may answer a later batch.
    Temporary,
    Permanent,
}

/// How fast the blocks came.
#[derive(Clone, Copy)]
pub struct Pace {
    pub blocks: usize,
    /// From the head of the answer to its end.
    pub body: Duration,
    /// From the request to its end.
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

    pub fn refuse_batch(&mut self, wanted: &[BlockRef], refusal: BatchRefusal) {
        self.rest.extend_from_slice(wanted);
        self.batch_refusal = Some(refusal);
    }

    /// Whether the server gave a block, or said that it lacks one.
    pub fn is_answered(&self) -> bool {
        self.given > 0 || self.lacks
    }

    /// Whether enough answers in a row are wrong to give the server up.
    pub fn reached_strike_limit(&self) -> bool {
        self.failures.len() >= STRIKES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_reach_the_limit() {
        let mut outcome = Outcome::default();
        let mut fail = || {
            outcome.fail(&[], Failure::strike("busy", true));
            outcome.reached_strike_limit()
        };
        assert_eq!([fail(), fail(), fail()], [false, false, true]);
        outcome.hit();
        assert!(!outcome.reached_strike_limit());
    }
}

/// What a server may answer, for the tests of its record and of the order of servers.
#[cfg(test)]
pub mod answers {
    use super::*;
    use crate::hash::Hash;

    /// `count` blocks in a row.
    pub fn wanted(count: usize) -> Vec<BlockRef> {
        let hash = Hash::of(b"block");
        let wanted = (0..count as u64).map(|number| BlockRef {
            number,
            hash,
            last: false,
        });
        wanted.collect()
    }

    pub type Answer = fn(&mut Outcome, &[BlockRef]);

    pub fn give(outcome: &mut Outcome, wanted: &[BlockRef]) {
        wanted.iter().for_each(|_| outcome.hit());
    }

    pub fn lack(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.miss(wanted, "no");
    }

    pub fn wrong(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, Failure::strike("wrong", false));
    }

    pub fn busy(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, Failure::strike("busy", true));
    }

    pub fn gone(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, Failure::unreachable("refused"));
    }
}
