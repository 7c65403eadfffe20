//! `psync export`, and the block directory under it: what is stored, and what a crash, a power cut, a full
//! disk and a refusal leave of it. The last four hold for `get` and its FILE too.

pub mod block_dir;
mod crash;
mod disks;
mod export;
