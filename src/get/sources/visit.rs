//! One turn at one server while its answers come: `blocks.rs` and the mirrors put the blocks into the sink,
//! and note in the outcome what else comes.
//!
//! Each block is read into a slot of the sink and verified there. `commit` takes in what the slot has
//! accepted, and tells whether there was a block: so the callers of `accept` need not look at its result.

use super::outcome::Outcome;
use crate::get::block_ref::BlockRef;
use crate::get::client::Client;
use crate::get::client::url::Url;
use crate::get::output::sink::Sink;

pub struct Visit<'a, 's> {
    pub client: &'a Client,
    pub url: &'a Url,
    pub sink: &'a mut Sink<'s>,
    /// The blocks that are still to come, in order. The outcome has the others; an `Err` concerns all of these.
    pub left: &'a [BlockRef],
    pub outcome: Outcome,
}

impl<'a> Visit<'a, '_> {
    /// Takes the current block, the first of those left, off them. Returns it as a slice of one.
    pub fn finish_current(&mut self) -> &'a [BlockRef] {
        let (current, left) = self.left.split_at(1);
        self.left = left;
        current
    }

    /// The server has none of the blocks that are left.
    pub fn miss_rest(&mut self, reason: &str) {
        self.outcome.miss(std::mem::take(&mut self.left), reason);
    }
}
