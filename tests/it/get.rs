//! `psync get`: where it looks for blocks, what it asks of servers, what it takes of their answers, and
//! what it writes, leaves and says.

mod answers;
mod by_root;
mod dry_run;
mod hashlist;
mod jobs;
mod local;
mod messages;
mod mirror;
pub mod output;
mod peers;
mod progress;
mod reads;
mod rights;
mod rounds;
mod runs;
mod seeds;
mod servers;
mod spread;
mod target;
