//! What psync reads from strangers, each as a function of any bytes at all that panics where psync
//! is wrong about them: for `driver.rs`, which `make test` and `make fuzz` run, and for libFuzzer.
#![allow(dead_code, reason = "psync has more than is fuzzed")]

use std::ops::RangeInclusive;

/// psync itself, with the paths that it knows itself by.
#[path = "../../src"]
mod psync {
    pub mod block;
    pub mod cli;
    pub mod console;
    pub mod error;
    pub mod export;
    pub mod file;
    pub mod frames;
    pub mod get;
    pub mod hash;
    pub mod hashlist;
    pub mod index;
    pub mod lan;
    pub mod lockfile;
    pub mod mutex;
    pub mod peers_text;
    pub mod progress;
    pub mod root;
    pub mod seconds;
    pub mod server;
    pub mod spawn;
    pub mod store;
    pub mod sys;
}
use psync::*;

// Once more, since they are the server's own affair.
#[path = "../../src/server/http.rs"]
mod http;
#[path = "../../src/server/list.rs"]
mod list_parser;

mod answer;
mod head;
mod list;
pub mod mutate;

pub use answer::clean;

/// One thing that is fuzzed.
pub struct Target {
    pub name: &'static str,
    /// Good bytes, to begin with.
    pub good: fn() -> Vec<Vec<u8>>,
    /// Whether psync accepts these bytes; it panics where psync is wrong about them.
    pub run: fn(&[u8]) -> bool,
    /// How many of a hundred mutations are accepted: fewer are noise, more are hardly mutated.
    pub accepted: RangeInclusive<u64>,
}

pub const TARGETS: &[Target] = &[
    Target {
        name: "head",
        good: head::good,
        run: head::check,
        accepted: 20..=80,
    },
    Target {
        name: "hashlist",
        good: list::good,
        run: list::check_reader,
        accepted: 20..=80,
    },
    Target {
        name: "body",
        good: list::good,
        run: list::check_body,
        accepted: 20..=80,
    },
    Target {
        name: "answer",
        good: answer::good,
        run: answer::check,
        // Few good answers bring both blocks.
        accepted: 3..=80,
    },
];
