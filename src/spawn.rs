//! The way to start a thread. Its work is boxed, since std has another copy of all that it does for a
//! thread for each kind of closure.

use std::thread;

use crate::error::{Error, Result};

/// Stack of a thread that asks servers, in bytes: ureq's deepest path takes a third of it.
pub const ASKING_STACK: usize = 256 * 1024;

/// Starts a thread with a stack of so many bytes.
///
/// # Errors
/// When there is none to be had.
pub fn spawn(stack: usize, work: Box<dyn FnOnce() + Send>) -> Result<()> {
    let started = thread::Builder::new().stack_size(stack).spawn(work);
    started.map_err(|e| Error::io("start", "a thread", &e))?;
    Ok(())
}
