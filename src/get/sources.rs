//! Where blocks come from: this machine, then servers, then mirrors.

mod blocks;
mod health;
pub mod local;
pub mod mirror;
pub mod outcome;
mod own_list;
pub mod peers;
pub mod seed;
pub mod servers;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::client::Client;
use super::output::sink::{Keep, Sink, Spare};
use crate::error::Result;
use crate::store::BlockDir;
use mirror::Mirror;
use outcome::{Missing, RequestKind};
use seed::Seed;
use servers::{RunStart, Servers};

/// Where blocks come from, be they the file's or its list's.
pub struct Sources {
    pub servers: Servers,
    pub mirrors: Servers,
    /// What is known of each mirror's copy, by the mirror's number.
    pub copies: Vec<Mirror>,
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

    /// Takes in what `servers`, which are this value's servers or mirrors, give of `missing`.
    ///
    /// # Errors
    /// What fails on this machine.
    pub fn fetch_from(
        &self,
        servers: &Servers,
        missing: &mut Missing,
        start: RunStart,
        sink: &mut Sink,
    ) -> Result<()> {
        servers.fetch(missing, start, |url, kind, wanted| match kind {
            RequestKind::Single => {
                let outcome = blocks::for_one(&self.client, url, &wanted[0], sink);
                // The next may take as long as a server takes.
                sink.flush();
                outcome
            }
            RequestKind::Batch => blocks::for_many(&self.client, url, wanted, sink),
            RequestKind::Range(mirror) => self.copies[mirror].ask(&self.client, url, wanted, sink),
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
