//! psync distributes files as blocks between boxes that need not trust each other.
//!
//! This file owns the way in and the way out: it lets `cli` read the command line, runs the command,
//! prints the one error, and turns it into the exit code. Nothing else ends the process.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod block;
mod cli;
mod console;
mod error;
mod export;
mod file;
mod frames;
mod get;
mod hash;
mod hashlist;
mod index;
mod lan;
mod lockfile;
mod mutex;
mod peers_text;
mod progress;
mod root;
mod seconds;
mod server;
mod spawn;
mod store;
mod sys;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    sys::ignore_file_size_signal();
    let done = cli::parse(std::env::args_os(), |name| std::env::var_os(name)).and_then(|command| {
        match command {
            Command::Print(text) => console::Stdout::new()?.write(text.as_bytes()),
            Command::Export(options) => export::run(&options),
            Command::Server(options) => server::run(options),
            Command::Get(options) => get::run(options),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
