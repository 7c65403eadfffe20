//! Where blocks come from.

pub mod blocks;
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
use super::output::sink::{Keep, Spare};
use crate::store::BlockDir;
use mirror::Mirror;
use seed::Seed;
use servers::Servers;

/// Where blocks come from, be they the file's or its list's.
pub struct Sources {
    pub servers: Servers,
    /// By their numbers.
    pub mirrors: Vec<Mirror>,
    pub client: Arc<Client>,
    pub dir: Option<BlockDir>,
    /// Where what is fetched is kept.
    pub keep: Keep,
    pub seeds: Vec<Seed>,
    pub spare: Spare,
    /// Nobody wants what is still being looked for.
    pub stop: AtomicBool,
}
