//! Threads that have done their work and wait a moment for more. A new thread for each connection
//! costs half of the requests that come without keep-alive.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::clients::Admitted;
use crate::mutex::lock;

/// Threads that wait, at most: some 12 KiB each.
const MAX_WAITING: usize = 64;

/// How long one waits.
const WAIT: Duration = Duration::from_secs(2);

/// Threads without work.
#[derive(Default)]
pub struct Threads {
    state: Mutex<State>,
    given: Condvar,
}

#[derive(Default)]
struct State {
    waiting: usize,
    /// Connections that were given to some of those, and that none has taken yet.
    given: VecDeque<Admitted>,
}

/// What becomes of a connection.
pub enum Handover {
    Taken,
    /// No thread is without work.
    NoThread(Admitted),
}

impl Threads {
    /// Hands a connection to one of them.
    pub fn hand_over(&self, admitted: Admitted) -> Handover {
        let mut state = lock(&self.state);
        if state.given.len() == state.waiting {
            return Handover::NoThread(admitted);
        }
        state.given.push_back(admitted);
        drop(state);
        self.given.notify_one();
        Handover::Taken
    }

    /// Waits for a connection. None where the thread is to end.
    pub fn wait(&self) -> Option<Admitted> {
        let mut state = lock(&self.state);
        if state.waiting == MAX_WAITING {
            return None;
        }
        state.waiting += 1;
        let is_idle = |state: &mut State| state.given.is_empty();
        let waited = self.given.wait_timeout_while(state, WAIT, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state.given.pop_front()
    }
}
