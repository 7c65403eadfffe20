//! Why a request brought no block, and how that counts against the server. This file owns that judgement; it
//! sends nothing, and keeps no record.

use std::fmt::Display;

/// Whether a later request may get what this status refuses.
pub fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// How a server failed a request: no answer came, or a wrong one. A plain no is no failure.
#[derive(Clone, Debug)]
pub struct ServerFailure {
    pub reason: String,
    kind: FailureKind,
}

#[derive(Clone, Copy, Debug)]
enum FailureKind {
    /// There is no connection.
    Unreachable,
    /// The server sent nothing in time.
    Silent,
    /// The answer is wrong. `transient`: the same server may answer rightly a little later.
    Bad { transient: bool },
}

impl ServerFailure {
    pub fn unreachable(reason: impl Display) -> Self {
        ServerFailure::new(reason, FailureKind::Unreachable)
    }

    pub fn silent(reason: impl Display) -> Self {
        ServerFailure::new(reason, FailureKind::Silent)
    }

    /// A wrong answer.
    pub fn strike(reason: impl Display, transient: bool) -> Self {
        ServerFailure::new(reason, FailureKind::Bad { transient })
    }

    fn new(reason: impl Display, kind: FailureKind) -> Self {
        ServerFailure {
            reason: reason.to_string(),
            kind,
        }
    }

    /// No answer came: the server is given up at once. A wrong answer is one strike.
    pub fn is_outage(&self) -> bool {
        !matches!(self.kind, FailureKind::Bad { .. })
    }

    /// The server took the request and sent nothing; another kind of request may get an answer.
    pub fn is_silence(&self) -> bool {
        matches!(self.kind, FailureKind::Silent)
    }

    /// Whether the same server may answer rightly a little later.
    pub fn is_transient(&self) -> bool {
        !matches!(self.kind, FailureKind::Bad { transient: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wrong_answer_that_will_stay_wrong_is_not_transient() {
        for (failure, outage, silence, transient) in [
            (ServerFailure::unreachable("refused"), true, false, true),
            (ServerFailure::silent("nothing came"), true, true, true),
            (ServerFailure::strike("busy", true), false, false, true),
            (ServerFailure::strike("wrong", false), false, false, false),
        ] {
            assert_eq!(failure.is_outage(), outage, "{failure:?}");
            assert_eq!(failure.is_silence(), silence, "{failure:?}");
            assert_eq!(failure.is_transient(), transient, "{failure:?}");
        }
    }
}
