//! Closed sets of label values.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

/// Distinct names that get series of their own, for task types and for queues each.
pub(crate) const NAMES_MAX: usize = 100;
/// The label of a task type that is not registered.
pub(crate) const UNKNOWN: &str = "unknown";
/// The label that all names beyond [`NAMES_MAX`] share.
pub(crate) const OTHER: &str = "other";

/// What is kept for each of a bounded number of names, made when a name is first met; the names after that share one.
#[derive(Debug)]
pub(crate) struct Series<K, V> {
    named: RwLock<HashMap<K, Arc<V>>>,
    other: RwLock<Option<Arc<V>>>,
}

impl<K, V> Default for Series<K, V> {
    fn default() -> Self {
        Self { named: RwLock::default(), other: RwLock::default() }
    }
}

impl<K: Clone + Eq + Hash + AsRef<str>, V> Series<K, V> {
    /// What is kept for `name`, and whether it is the shared one. `make` is given the label.
    pub(crate) fn of(&self, name: &K, make: impl FnOnce(&str) -> V) -> (Arc<V>, bool) {
        if let Some(known) = self.named.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return (known.clone(), false);
        }
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = named.get(name) {
            return (known.clone(), false);
        }
        if named.len() < NAMES_MAX {
            let made = Arc::new(make(name.as_ref()));
            named.insert(name.clone(), made.clone());
            return (made, false);
        }
        drop(named);
        let mut other = self.other.write().unwrap_or_else(PoisonError::into_inner);
        (other.get_or_insert_with(|| Arc::new(make(OTHER))).clone(), true)
    }
}
