//! Threads that have served a connection and wait a moment for another. Starting a new thread for each
//! costs half of the requests that come without keep-alive.
//!
//! This file owns the wait and the handover. It starts no thread, and does not look into a connection.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::clients::Admitted;
use crate::mutex::{lock, unpoisoned};

/// Threads that wait at once, at most: each takes some 12 KiB.
const MAX_WAITING: usize = 64;

/// How long a thread waits.
const WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Threads {
    state: Mutex<State>,
    given: Condvar,
}

#[derive(Default)]
struct State {
    waiting: usize,
    /// Connections for the waiting threads, which are about to take them.
    given: VecDeque<Admitted>,
}

impl Threads {
    /// Hands a connection to a waiting thread. Returns it where none waits.
    pub fn hand_over(&self, admitted: Admitted) -> Option<Admitted> {
        let mut state = lock(&self.state);
        if state.given.len() == state.waiting {
            return Some(admitted);
        }
        state.given.push_back(admitted);
        drop(state);
        self.given.notify_one();
        None
    }

    /// Waits for a connection. None when the thread should end.
    pub fn wait(&self) -> Option<Admitted> {
        let mut state = lock(&self.state);
        if state.waiting == MAX_WAITING {
            return None;
        }
        state.waiting += 1;
        let is_idle = |state: &mut State| state.given.is_empty();
        let waited = self.given.wait_timeout_while(state, WAIT, is_idle);
        let (mut state, _) = unpoisoned(waited);
        state.waiting -= 1;
        state.given.pop_front()
    }
}
