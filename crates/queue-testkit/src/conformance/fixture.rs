use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue_core::Store;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::Subject;

/// How long a case may take. It only ends a store that hangs.
const CASE_MAX: Duration = Duration::from_secs(120);

/// What a case runs on: a store, and whatever must live and be cleared away with it.
///
/// Every store is a fixture. A store in a database of its own, which goes when the case is over, is one as well:
///
/// ```
/// use queue_testkit::MemoryStore;
/// use queue_testkit::conformance::Fixture;
///
/// #[derive(Debug)]
/// struct Temporary {
///     store: MemoryStore,
///     database: String,
/// }
///
/// #[async_trait::async_trait]
/// impl Fixture for Temporary {
///     type Store = MemoryStore;
///
///     fn store(&self) -> &MemoryStore {
///         &self.store
///     }
///
///     async fn finish(&self) {
///         println!("DROP DATABASE {}", self.database);
///     }
/// }
/// ```
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// The kind of store.
    type Store: Store + 'static;

    /// The store, empty and migrated.
    fn store(&self) -> &Self::Store;

    /// Clears away. It is called once when the case is over, whether it passed or failed; the store is not used any more.
    async fn finish(&self) {}
}

#[async_trait]
impl<S: Store + 'static> Fixture for S {
    type Store = S;

    fn store(&self) -> &S {
        self
    }
}

/// A fixture whose kind of store is forgotten: the cases know the ports alone.
pub(super) trait Erased: Send + Sync {
    fn erased(&self) -> &(dyn Store + 'static);
}

impl<F: Fixture> Erased for F {
    fn erased(&self) -> &(dyn Store + 'static) {
        self.store()
    }
}

/// Runs one case on a fresh fixture, in a multi-threaded runtime of its own. This is what each test of
/// [`conformance!`](crate::conformance!) does.
///
/// # Panics
///
/// When the store does not keep what the case is about, after the fixture was [finished](Fixture::finish).
pub fn run<F, Fresh, C, Running>(fresh: F, case: C)
where
    F: FnOnce() -> Fresh,
    Fresh: Future<Output: Fixture>,
    C: FnOnce(Subject) -> Running,
    Running: Future<Output = ()> + 'static,
{
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be had");
    LocalSet::new().block_on(&runtime, async {
        let fixture = Arc::new(fresh().await);
        // A task of its own catches the panic.
        let mut running = tokio::task::spawn_local(case(Subject::new(fixture.clone())));
        let ended = timeout(CASE_MAX, &mut running).await;
        running.abort();
        fixture.finish().await;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => resume_unwind(failed.into_panic()),
            Err(_) => panic!("the case did not end within {CASE_MAX:?}"),
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::MemoryStore;

    struct Counted {
        store: MemoryStore,
        finished: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Fixture for Counted {
        type Store = MemoryStore;

        fn store(&self) -> &MemoryStore {
            &self.store
        }

        async fn finish(&self) {
            self.finished.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_fixture_is_finished_whether_the_case_passes_or_not() {
        let finished = Arc::new(AtomicUsize::new(0));
        let fresh = || {
            let finished = finished.clone();
            async { Counted { store: MemoryStore::new(), finished } }
        };
        run(fresh, |_| async {});
        assert_eq!(finished.load(Ordering::SeqCst), 1);
        let failed = std::panic::catch_unwind(|| run(fresh, |_| async { panic!("on purpose") }));
        assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"on purpose"));
        assert_eq!(finished.load(Ordering::SeqCst), 2);
    }
}
