//! The way to start a thread.
//!
//! This file owns that call and nothing of the work. The work is boxed: std compiles a copy of all that it does
//! for a thread for each type of closure.

use std::thread;

use crate::error::{Error, Result};

/// Stack of a thread that asks servers, in bytes: ureq's deepest path takes a third of it.
pub const ASKING_STACK: usize = 256 * 1024;

/// Starts a thread with a stack of `stack` bytes.
///
/// # Errors
/// When the system has no thread left.
pub fn spawn(stack: usize, work: Box<dyn FnOnce() + Send>) -> Result<()> {
    let started = thread::Builder::new().stack_size(stack).spawn(work);
    started.map_err(|e| Error::io("start", "a thread", &e))?;
    Ok(())
}
