//! The log of `-v`. Lines wait here for the one thread that writes them, many at once where many come: a
//! full pipe delays that thread and no connection.
//!
//! This file owns the lines that wait. It does not know what they say.

use std::mem;
use std::sync::{Condvar, Mutex};

use crate::console;
use crate::error::Error;
use crate::mutex::{lock, unpoisoned};

/// Bytes that may wait. The log loses lines beyond them, and counts those.
const MAX_WAITING: usize = 256 * 1024;

/// Stack of the thread that writes, in bytes.
pub const STACK: usize = 64 * 1024;

#[derive(Default)]
pub struct Log {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: String,
    lost: u64,
}

/// Reports what went wrong: through the log where there is one, since writing past it may block.
pub fn report(log: Option<&Log>, error: &Error) {
    let Some(log) = log else {
        return console::report(error);
    };
    for line in error.lines() {
        log.add(&console::message(line));
    }
}

impl Log {
    /// Takes in a line.
    pub fn add(&self, line: &str) {
        let mut waiting = lock(&self.waiting);
        if waiting.text.len() + line.len() > MAX_WAITING {
            waiting.lost += 1;
            return;
        }
        waiting.text.push_str(line);
        waiting.text.push('\n');
        drop(waiting);
        self.more.notify_one();
    }

    /// Writes the lines as they come, for ever.
    pub fn run(&self) {
        loop {
            let is_empty = |waiting: &mut Waiting| waiting.text.is_empty();
            let waiting = self.more.wait_while(lock(&self.waiting), is_empty);
            let waiting = mem::take(&mut *unpoisoned(waiting));
            console::stderr_line(waiting.text.trim_end().to_owned());
            if waiting.lost > 0 {
                let lost = waiting.lost;
                console::complain(format_args!(
                    "{lost} lines of the log are lost: nobody read what was written before"
                ));
            }
        }
    }
}
