//! Where blocks go. Only a `Block` can be written, and a `Block` is verified.

use crate::block::Block;
use crate::console::Stdout;
use crate::error::Result;

/// Standard output: the blocks one after the other.
pub struct Stream(Stdout);

impl Stream {
    pub fn new() -> Result<Self> {
        Stdout::new().map(Stream)
    }

    pub fn write(&mut self, block: &Block<impl AsRef<[u8]>>) -> Result<()> {
        self.0.write(block.bytes())
    }
}
