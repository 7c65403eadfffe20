//! Standard streams out of the ordinary: full, broken, or a terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeWriter};

use super::{PSYNC, Run, need, tool};

/// What takes not one byte: no space is left on it.
pub fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader has gone.
pub fn broken() -> PipeWriter {
    io::pipe().unwrap().1
}

/// A shell command at a pseudo terminal, with psync as `$PSYNC`: what the terminal got is the standard
/// output of this. Keep the pipe, by which nobody types: its end would be typed into the terminal.
#[track_caller]
pub fn at_terminal(command: &str) -> (Run, PipeWriter) {
    let (keyboard, typist) = io::pipe().unwrap();
    let script = tool!("script", "-q", "-e", "-f", "-c", command, "/dev/null");
    let script = script.env("PSYNC", PSYNC).env("SHELL", need("sh"));
    (script.stdin_from(keyboard), typist)
}

/// Lines that have come whole.
pub fn line_count(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}
