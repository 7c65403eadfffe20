//! Locks that a panic does not poison: whoever panicked is told of where it is joined.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
