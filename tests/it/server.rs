//! `psync server`: what it reads and serves, what it answers on the wire, to the byte, and what keeps
//! it alive.

mod attacks;
mod block_dir;
mod cli;
mod http;
mod limits;
mod post_blocks;
pub mod whole_files;
mod wire;
