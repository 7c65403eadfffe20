//! Why a request brought no block, as it counts against the server.

use std::fmt::Display;

/// Whether what a status refuses may be given a little later.
pub fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// An answer that is neither a block nor a plain no.
#[derive(Clone, Debug)]
pub struct Failure {
    pub reason: String,
    /// No connection, or silence: the server is given up at once. Else it is one strike.
    pub at_once: bool,
    /// Silence, which may be a request's fault.
    pub silent: bool,
    /// Whether the same server may do better a little later.
    pub passing: bool,
}

impl Failure {
    /// No connection.
    pub fn gone(reason: impl Display) -> Self {
        Failure {
            at_once: true,
            ..Failure::strike(reason, true)
        }
    }

    /// A connection on which nothing comes.
    pub fn silent(reason: impl Display) -> Self {
        Failure {
            silent: true,
            ..Failure::gone(reason)
        }
    }

    /// A wrong answer.
    pub fn strike(reason: impl Display, passing: bool) -> Self {
        Failure {
            reason: reason.to_string(),
            at_once: false,
            silent: false,
            passing,
        }
    }

    /// Whether there was an answer that made no sense.
    pub fn is_misunderstanding(&self) -> bool {
        !self.at_once && !self.passing
    }
}
