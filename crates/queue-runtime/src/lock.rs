//! Locks that are held for moments only.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. Nothing of this crate panics under a lock; were it so, what it guards would still be whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
