//! One request to one server while its answer comes: `blocks.rs` and the mirrors put the blocks into the
//! sink, and note in the outcome what else comes.

use super::outcome::Outcome;
use crate::get::block_ref::BlockRef;
use crate::get::client::Client;
use crate::get::client::url::Url;
use crate::get::output::sink::Sink;

pub struct Visit<'a, 's> {
    pub client: &'a Client,
    pub url: &'a Url,
    pub sink: &'a mut Sink<'s>,
    /// The blocks that are still to come, in order.
    pub left: &'a [BlockRef],
    pub outcome: Outcome,
}

impl<'a> Visit<'a, '_> {
    /// Goes on with the next block; returns the last one.
    pub fn next(&mut self) -> &'a [BlockRef] {
        let (this, left) = self.left.split_at(1);
        self.left = left;
        this
    }

    /// The server has none of the blocks that are left.
    pub fn miss_rest(&mut self, reason: &str) {
        self.outcome.miss(std::mem::take(&mut self.left), reason);
    }
}
