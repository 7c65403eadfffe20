//! psync from outside: the real binary, real sockets and files, exact output. One crate, so that it
//! links once; what the tests share is in `support`. Each folder's own file says what the folder holds, and
//! `make test ONLY=get::output::` runs the tests of one file.
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

mod docs;
mod get;
mod host;
mod server;
mod store;
mod support;
mod together;
