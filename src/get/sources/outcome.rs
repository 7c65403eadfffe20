//! What one turn at one server is, and what it brought: `blocks.rs` and the mirrors report it, `health.rs`
//! judges it. A turn is one request, or the few that a mirror takes for the same blocks.

use std::fmt::Display;
use std::time::Duration;

use crate::get::block_ref::BlockRef;
use crate::get::client::failure::ServerFailure;

/// Wrong answers in a row after which a server is given up.
pub const STRIKES: u32 = 3;

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RequestKind {
    /// For one block.
    Single,
    /// For many blocks at once.
    Batch,
    /// For parts of the whole file, of a mirror.
    Range,
}

/// What one turn brought. Each block asked for is counted in `given` or stands in `rest`:
///
/// - [`Outcome::hit`]: the server gave it.
/// - [`Outcome::miss`]: the server lacks it; that is an answer, and no failure.
/// - [`Outcome::fail`]: one failure keeps back one block or many. Where an answer stops at [`STRIKES`], the
///   blocks that are left go into `rest` too, without a failure of their own.
/// - [`Outcome::refuse_batch`]: asked again at the same server, so it needs no reason.
#[derive(Default)]
pub struct Outcome {
    /// The blocks that the server did not give, in order.
    pub rest: Vec<BlockRef>,
    pub given: usize,
    /// Whether the server said of a block that it lacks it.
    pub lacks: bool,
    /// Why the server did not give a block: of the last miss or failure.
    pub reason: Option<String>,
    /// The failures since the last block that the server gave or lacks. `health.rs` judges by them whether
    /// the server is given up.
    pub failures: Vec<ServerFailure>,
    pub batch_refusal: Option<BatchRefusal>,
    /// None where no block came, or nothing can be said of the line.
    pub pace: Option<Pace>,
}

/// The blocks of a run that no server has given so far: all of them before the first server is asked, the
/// missing ones after the last. `transient`: a server may give them in a later round.
#[derive(Default)]
pub struct Pending {
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

    pub fn fail(&mut self, wanted: &[BlockRef], failure: ServerFailure) {
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

    /// Whether [`STRIKES`] blocks in a row were wrong: the rest of the answer is not worth reading.
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
            outcome.fail(&[], ServerFailure::strike("busy", true));
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
        outcome.fail(wanted, ServerFailure::strike("wrong", false));
    }

    pub fn busy(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, ServerFailure::strike("busy", true));
    }

    pub fn gone(outcome: &mut Outcome, wanted: &[BlockRef]) {
        outcome.fail(wanted, ServerFailure::unreachable("refused"));
    }
}
