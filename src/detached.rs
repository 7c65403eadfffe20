//! Threads that nobody joins.
//!
//! This file owns how they are started. Their work comes in a box, so that what std does around it is
//! compiled once: it is more than a kilobyte.

use std::io;
use std::thread;

/// Starts `work`, with a stack of so many bytes if that is said.
///
/// # Errors
/// When the machine has no thread left.
pub fn start(stack: Option<usize>, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let mut thread = thread::Builder::new();
    if let Some(stack) = stack {
        thread = thread.stack_size(stack);
    }
    thread.spawn(work).map(drop)
}
