//! What the command line asks `get` for.
//!
//! This file owns the values. `cli.rs` parses them, and `get.rs` acts on them.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::client::url::Url;
use crate::hash::Hash;
use crate::store::BlockDir;

/// The options and arguments of `get`.
pub struct Options {
    pub servers: Vec<Url>,
    /// Files with more servers.
    pub server_lists: Vec<PathBuf>,
    /// The address of the interface by which `get` asks the local network for servers, or unspecified for
    /// the system's choice. None: it does not ask.
    pub lan: Option<Ipv4Addr>,
    /// Plain copies of the whole file.
    pub mirrors: Vec<Url>,
    /// Whether each run of blocks begins at another server.
    pub spread: bool,
    /// Whether each server is asked for the servers that it knows.
    pub peers: bool,
    pub hashlist: Hashlist,
    /// None: standard output.
    pub output: Option<PathBuf>,
    pub in_place: bool,
    /// Whether to count only local and missing blocks.
    pub dry_run: bool,
    /// The block directory. None where no directory is known.
    pub dir: Option<BlockDir>,
    /// Whether fetched blocks go into `dir`.
    pub keep: bool,
    pub seeds: Vec<PathBuf>,
    pub jobs: usize,
    pub retry: u32,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub quiet: bool,
    pub verbose: bool,
    pub stats: bool,
}

impl Options {
    /// The same without servers, and without a place to keep blocks.
    pub fn alone(self) -> Self {
        Options {
            servers: Vec::new(),
            server_lists: Vec::new(),
            lan: None,
            mirrors: Vec::new(),
            peers: false,
            keep: false,
            retry: 0,
            ..self
        }
    }
}

/// Where the hashes come from.
pub enum Hashlist {
    /// A file's name, or `-`.
    File(OsString),
    Root(Hash),
}

impl fmt::Display for Hashlist {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Hashlist::File(name) => name.display().fmt(f),
            Hashlist::Root(hash) => hash.fmt(f),
        }
    }
}
