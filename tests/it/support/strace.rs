//! System calls of a program, as strace tells them.

use std::collections::HashMap;
use std::fs;

use super::{Output, Run, TempDir};

/// Runs it under strace and returns each call of these, in order of their ends.
pub fn trace(calls: &str, more: &[&str], run: Run) -> (Output, Vec<Call>) {
    let dir = TempDir::new();
    let log = dir.join("log");
    let to = log.to_str().unwrap();
    let select = format!("trace={calls}");
    let options = [&["-f", "-q", "-y", "-o", to, "-e", &select], more].concat();
    let out = run.under("strace", options).run();
    (out, Call::parse(&fs::read(log).unwrap()))
}

/// One system call as strace tells it, and the lines of the log at which it began and ended.
#[derive(Debug)]
pub struct Call {
    pub text: String,
    pub begin: usize,
    pub end: usize,
}

impl Call {
    fn parse(log: &[u8]) -> Vec<Call> {
        let (mut calls, mut open) = (Vec::new(), HashMap::new());
        for (end, line) in String::from_utf8_lossy(log).lines().enumerate() {
            let Some((pid, text)) = line.split_once(' ') else {
                continue;
            };
            let text = text.trim_start();
            if let Some(begun) = text.strip_suffix("<unfinished ...>") {
                open.insert(pid.to_owned(), (end, begun.to_owned()));
            } else if let Some((_, rest)) = text
                .split_once("resumed>")
                .filter(|_| text.starts_with("<..."))
            {
                let (begin, begun) = open.remove(pid).unwrap();
                calls.push(Call {
                    text: begun + rest,
                    begin,
                    end,
                });
            } else if text.contains('(') {
                calls.push(Call {
                    text: text.to_owned(),
                    begin: end,
                    end,
                });
            }
        }
        calls
    }

    pub fn is(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| self.text.split('(').next() == Some(name))
    }

    pub fn is_sync(&self) -> bool {
        self.is(&["syncfs", "fsync", "fdatasync", "sync"])
    }

    pub fn is_rename(&self) -> bool {
        self.is(&["rename", "renameat", "renameat2"])
    }

    /// What stands in quotes, or as a descriptor's path.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.text
            .split(['"', '<', '>'])
            .filter(|part| part.starts_with('/'))
    }
}
