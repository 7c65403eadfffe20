//! The one door to standard output and standard error.
//!
//! std's `print!` panics on a closed pipe and its stdout is line-buffered, a system call a line:
//! here nothing panics and every write is one that the caller asked for.

use std::env;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::mutex::lock;
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

/// Whether the terminal shows a progress line, which a message must not be mixed with. Held while
/// writing.
static PROGRESS: Mutex<bool> = Mutex::new(false);

/// Back to the first column, and all after it erased.
const CLEAR: &str = "\r\x1b[K";

/// Writes one line to standard error, in one write, as psync's. A closed or full stderr is nothing
/// to die of.
pub fn complain(line: impl Display) {
    print_line(message(&line));
}

/// Writes what went wrong.
pub fn report(error: &Error) {
    error.lines().iter().for_each(complain);
    if let Some(line) = error.last_line() {
        print_line(line.to_owned());
    }
}

/// The line as psync's. File names may hold line feeds and escape sequences; a message is one line.
pub fn message(line: &dyn Display) -> String {
    let text = format!("psync: {line}");
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(shown).collect()
}

/// Writes one line to standard error for a program to read.
pub fn print_line(mut line: String) {
    line.push('\n');
    let mut shown = lock(&PROGRESS);
    if mem::take(&mut *shown) {
        line.insert_str(0, CLEAR);
    }
    write_stderr(&line);
}

/// Whether there is somebody to see progress. Not at a terminal that would show escape codes as they
/// are, nor where standard output goes to the same terminal, as `to_stdout` says that something does:
/// that is progress enough.
pub fn is_watched(to_stdout: bool) -> bool {
    let is_dumb = || env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_dumb() && !(to_stdout && io::stdout().is_terminal())
}

/// Shows a progress line in place of the last, cut to the terminal's width. Empty to take it away.
pub fn show_progress(line: &str) {
    // The last column stays free: some terminals wrap as soon as it is filled.
    let width = sys::terminal_width()
        .unwrap_or(USUAL_WIDTH)
        .saturating_sub(1);
    let cut: String = line.chars().take(width).collect();
    let mut shown = lock(&PROGRESS);
    if mem::replace(&mut *shown, !line.is_empty()) || !line.is_empty() {
        write_stderr(&format!("{CLEAR}{cut}"));
    }
}

/// Columns of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;

fn write_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
