//! Turns at reading and hashing blocks of long lists. A thousand clients that ask for long lists would
//! keep every processor busy for seconds, and who asks for a single block would wait for all of them.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use crate::mutex::lock;

/// Turns at once for each processor: with one, connections wait for each other and `get` takes a tenth
/// longer; with four, a single block waits twice as long while a thousand clients ask for lists.
const EACH: usize = 2;

/// So many turns at once.
pub struct Turns {
    free: Mutex<usize>,
    given_back: Condvar,
}

impl Turns {
    pub fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Turns {
            free: Mutex::new(EACH * processors),
            given_back: Condvar::new(),
        }
    }

    /// Waits for a turn, which lasts until dropped.
    pub fn take(&self) -> Turn<'_> {
        let free = self
            .given_back
            .wait_while(lock(&self.free), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Turn(self)
    }
}

pub struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.given_back.notify_one();
    }
}
