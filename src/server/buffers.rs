//! The large buffers of a server, from which many blocks are sent with one write. Its connections
//! share them: a thousand of their own would take the memory of a small box.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use super::frames;
use crate::mutex::lock;

/// Blocks in a large buffer. With twice as many a block costs the processor as much.
const BLOCKS: usize = 16;

/// Large buffers, 64 KiB each, so 1 MiB. A fast client has one for a moment; slow ones, who may
/// well have all of them, wait for the network, and more calls to the system cost them nothing.
const COUNT: usize = 16;

/// The large buffers that nobody uses. None has memory before its first use, and none gives it
/// back: a client with one request after the other finds it where it was.
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    pub fn new() -> Self {
        Buffers(Mutex::new(vec![Vec::new(); COUNT]))
    }

    /// None where all are in use.
    pub fn borrow(&self) -> Option<Borrowed<'_>> {
        // The last that was used, whose memory is warm.
        let mut buffer = lock(&self.0).pop()?;
        buffer.resize(frames::buffer_size(BLOCKS), 0);
        Some(Borrowed {
            buffers: self,
            buffer,
        })
    }
}

/// A large buffer, given back when dropped, also by a panic.
pub struct Borrowed<'a> {
    buffers: &'a Buffers,
    buffer: Vec<u8>,
}

impl Deref for Borrowed<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer
    }
}

impl DerefMut for Borrowed<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        lock(&self.buffers.0).push(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_they_come_back() {
        let buffers = Buffers::new();
        let mut borrowed: Vec<_> = (0..COUNT).map(|_| buffers.borrow().unwrap()).collect();
        assert!(buffers.borrow().is_none());
        let address = borrowed.pop().unwrap().as_ptr();
        assert_eq!(buffers.borrow().unwrap().as_ptr(), address);
    }
}
