//! The one door to standard output and standard error.
//!
//! std's `print!` panics on a closed pipe and its stdout is line-buffered, a system call a line:
//! here nothing panics and every write is one that the caller asked for.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use crate::error::{Error, Result};
use crate::sys;

/// Standard output, unbuffered.
pub struct Stdout(File);

impl Stdout {
    /// # Errors
    /// When there is none, or it cannot be duplicated for want of a descriptor.
    pub fn new() -> Result<Self> {
        if sys::was_closed_at_start(1) {
            return Err(Error::stdout(&io::ErrorKind::BrokenPipe.into()));
        }
        let fd = io::stdout().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|e| Error::io("open", "standard output", &e))?;
        Ok(Stdout(fd.into()))
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(|e| Error::stdout(&e))
    }
}

/// Standard input, unbuffered: std's own takes one that cannot be read for an empty one.
///
/// # Errors
/// When there is none, which is not the same as an empty one either.
pub fn stdin() -> Result<File> {
    if sys::was_closed_at_start(0) {
        return Err(Error::local("read", "standard input", "it is closed"));
    }
    let fd = io::stdin().as_fd().try_clone_to_owned();
    Ok(fd
        .map_err(|e| Error::io("open", "standard input", &e))?
        .into())
}

/// Writes one line to standard error, in one write. A closed or full stderr is nothing to die of.
pub fn complain(line: impl Display) {
    let mut text = format!("psync: {line}");
    // File names may hold line feeds and escape sequences; a message is one line.
    if text.contains(char::is_control) {
        text = text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
    }
    text.push('\n');
    let _ = io::stderr().write_all(text.as_bytes());
}
