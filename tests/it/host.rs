//! The machine under psync: what it grants and refuses a process, other processors, what only root can
//! set up, and what long runs use up.

mod cross;
pub mod machine;
mod privileged;
pub mod soak;
mod soak_day;
