//! Where blocks come from: this machine, then servers, then mirrors.
//!
//! This file owns what all finders share, and the way from a planned request to the code that sends it. It
//! does not decide which server is next (`servers.rs`).

mod blocks;
mod health;
pub mod local;
mod mirror;
mod mirror_body;
mod mirror_stream;
pub mod outcome;
mod own_list;
pub mod peers;
pub mod seed;
pub mod servers;
mod visit;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::client::{Client, RequestError};
use super::output::sink::{Keep, Sink, Spare};
use crate::error::Result;
use crate::store::BlockDir;
use outcome::{Outcome, Pending, RequestKind};
use seed::Seed;
use servers::{RunStart, Server, Servers};
use visit::Visit;

/// Where blocks come from, be they the file's or its list's.
pub struct Sources {
    pub servers: Servers,
    pub mirrors: Servers,
    pub client: Arc<Client>,
    pub dir: Option<BlockDir>,
    /// Where what is fetched is kept.
    pub keep: Keep,
    pub seeds: Vec<Seed>,
    pub spare: Spare,
    /// The workers stop: no one wants their blocks any more.
    pub stop: AtomicBool,
}

impl Sources {
    /// Begins a run of blocks that are not local.
    pub fn begin_run(&self) -> RunStart<'_> {
        self.servers.begin_run(&self.mirrors)
    }

    /// Takes in what `servers`, which are this value's servers or mirrors, give of the `pending` blocks.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn fetch_from(
        &self,
        servers: &Servers,
        pending: &mut Pending,
        start: RunStart,
        sink: &mut Sink,
    ) -> Result<()> {
        servers.fetch(pending, start, |server: &Server, kind, wanted| {
            let mut visit = Visit {
                client: &self.client,
                url: &server.url,
                sink,
                left: wanted,
                outcome: Outcome::default(),
            };
            let received = match (&server.mirror, kind) {
                (Some(mirror), _) => mirror.receive(&mut visit),
                (None, RequestKind::Single) => blocks::receive_one(&mut visit),
                (None, _) => blocks::receive_many(&mut visit),
            };
            match received {
                Ok(()) => {}
                Err(RequestError::Server(failure)) => visit.outcome.fail(visit.left, failure),
                Err(RequestError::Local(error)) => return Err(error),
            }
            if kind == RequestKind::Single {
                // The next may take as long as a server takes.
                visit.sink.flush();
            }
            Ok(visit.outcome)
        })
    }

    /// Gives each server and mirror that was given up for a transient reason another chance.
    pub fn revive(&self) {
        self.servers.revive();
        self.mirrors.revive();
    }

    /// As [`Servers::reasons`], the mirrors last.
    pub fn reasons(&self, each_peer: bool) -> Vec<String> {
        let each = [&self.servers, &self.mirrors];
        each.map(|servers| servers.reasons(each_peer)).concat()
    }
}
