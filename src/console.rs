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
    /// When it was closed at the start, or no descriptor is left to duplicate it.
    pub fn new() -> Result<Self> {
        if sys::was_closed_at_start(1) {
            return Err(Error::stdout(&io::ErrorKind::BrokenPipe.into()));
        }
        unbuffered(&io::stdout(), "standard output").map(Stdout)
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(|e| Error::stdout(&e))
    }
}

/// Standard input, unbuffered: std's own takes one that cannot be read for an empty one.
///
/// # Errors
/// When it was closed at the start, which is not the same as empty.
pub fn stdin() -> Result<File> {
    if sys::was_closed_at_start(0) {
        return Err(Error::local("read", "standard input", "it is closed"));
    }
    unbuffered(&io::stdin(), "standard input")
}

fn unbuffered(stream: &impl AsFd, name: &str) -> Result<File> {
    let fd = stream.as_fd().try_clone_to_owned();
    fd.map(File::from).map_err(|e| Error::io("open", name, &e))
}

/// Whether the terminal shows a progress line, which each message has to erase first. Held while writing.
static PROGRESS: Mutex<bool> = Mutex::new(false);

/// Moves to the first column and erases the line.
const CLEAR: &str = "\r\x1b[K";

/// Writes a message to standard error, in one write. Ignores a closed or full stderr.
pub fn complain(line: impl Display) {
    stderr_line(message(&line));
}

/// Writes all messages of `error`.
pub fn report(error: &Error) {
    error.lines().iter().for_each(complain);
    if let Some(line) = error.closing_line() {
        stderr_line(line.to_owned());
    }
}

/// The message that says `line`. A message is one line, though a file name in it may hold line feeds and
/// escape sequences.
pub fn message(line: &dyn Display) -> String {
    format!("psync: {line}").replace(char::is_control, "?")
}

/// Writes a line to standard error as it is, for programs to read.
pub fn stderr_line(mut line: String) {
    line.push('\n');
    let mut shown = lock(&PROGRESS);
    if mem::take(&mut *shown) {
        line.insert_str(0, CLEAR);
    }
    write_stderr(&line);
}

/// Whether standard error is a terminal to show progress on: not a dumb one, which would show the escape
/// codes, nor one that shows the data, which goes `to_stdout` and is progress enough.
pub fn is_watched(to_stdout: bool) -> bool {
    let is_dumb = || env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_dumb() && !(to_stdout && io::stdout().is_terminal())
}

/// Shows a progress line in place of the last, cut to the terminal's width. An empty one erases it.
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

/// Columns of a terminal that does not tell its width.
const USUAL_WIDTH: usize = 80;

fn write_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
