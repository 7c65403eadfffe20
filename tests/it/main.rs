//! psync from outside: the real binary, real sockets and files, exact output. One crate, so that it
//! links once; what the tests share is in `support`, and each other file says what it holds.
//!
//! Tests named `root_…` need root and `slow_…` minutes; both are `#[ignore]`d, for `make test-root`. So
//! are those named `cross_…`, for `make test-cross`, and `peers_…`, for `make test-peers`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a panic is a test's verdict, and its stderr is captured with it"
)]

// Its `#[test]` is that of every file here: a missing program skips a test.
#[macro_use]
extern crate skippable;

mod crash;
mod cross;
mod disks;
mod dist;
mod export;
mod fleet;
mod get_answers;
mod get_dry_run;
mod get_hashlist;
mod get_jobs;
mod get_local;
mod get_messages;
mod get_mirror;
mod get_output;
mod get_rights;
mod get_rounds;
mod get_runs;
mod get_seeds;
mod get_servers;
mod get_spread;
mod get_target;
mod harness;
mod help;
mod interop;
mod lan;
mod machine;
mod manual;
mod peers;
mod progress;
mod proxies;
mod readme;
mod recipes;
mod root;
mod roots;
mod server_attacks;
mod server_blocks;
mod server_cli;
mod server_file;
mod server_files;
mod server_http;
mod server_limits;
mod server_wire;
mod share;
mod smoke;
mod soak;
mod soak_day;
mod store;
mod support;
