//! Locks that a panic does not poison: the thread that joins a panicked one learns of the panic.
//!
//! This file owns the way to lock, and no lock.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(shared.lock())
}

/// What a lock or a wait for one brings, whether a thread panicked meanwhile or not.
pub fn unpoisoned<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
