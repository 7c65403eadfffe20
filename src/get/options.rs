//! What the command line asks `get` for.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::client::url::Url;
use crate::hash::Hash;
use crate::store::BlockDir;

/// What the command line asks for.
pub struct Options {
    pub servers: Vec<Url>,
    /// Files with more of them.
    pub server_lists: Vec<PathBuf>,
    /// By which interface the local network is asked for servers, if it is: its address, or
    /// unspecified for the system's choice.
    pub lan: Option<Ipv4Addr>,
    /// Plain copies of the whole file.
    pub mirrors: Vec<Url>,
    /// Whether each run of blocks begins at another server.
    pub spread: bool,
    /// Whether servers are asked for more of them.
    pub peers: bool,
    pub hashlist: Hashlist,
    /// None: standard output.
    pub output: Option<PathBuf>,
    pub in_place: bool,
    /// Whether to count only what is here and what is missing.
    pub dry_run: bool,
    /// Looked in first. None where no directory is known.
    pub dir: Option<BlockDir>,
    /// Whether what is fetched goes into `dir`.
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
    /// Without servers to ask, and without a place to keep blocks.
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
