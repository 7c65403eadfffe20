//! All commands at work together, over networks, and with programs that nobody here wrote.

mod fleet;
mod interop;
pub mod lan;
mod proxies;
mod smoke;
