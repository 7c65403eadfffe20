//! Locks that a panic does not poison: the thread that joins a panicked one learns of the panic.
//!
//! This file owns the way to lock, and no lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
