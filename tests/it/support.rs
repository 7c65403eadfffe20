//! What the tests share: programs run under watch, files made from a seed, servers and clients that
//! keep no rule. Knows psync only by its command line.

mod at_drop;
mod client;
mod content;
mod daemon;
#[path = "../fuzz/mutate.rs"]
#[allow(dead_code, reason = "only the dice are of use here")]
mod dice;
mod harness;
mod hostile;
mod mount;
mod need;
mod netns;
mod process;
mod readme;
mod relay;
mod rooted;
mod run;
mod runs;
mod sample;
mod story;
mod strace;
mod streams;
mod tempdir;
mod users;

pub use at_drop::*;
pub use client::*;
pub use content::*;
pub use daemon::*;
pub use dice::Dice;
pub use hostile::*;
pub use mount::*;
pub use need::*;
pub use netns::*;
pub use process::*;
pub use readme::*;
pub use relay::*;
pub use rooted::*;
pub use run::*;
pub use runs::*;
pub use sample::*;
pub use story::*;
pub use strace::*;
pub use streams::*;
pub use tempdir::*;
pub use users::*;
