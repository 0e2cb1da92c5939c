//! One call to the store, so that whatever it does the pool hears of it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use queue_core::{Clock, StoreError};

/// Waits for a call to the store, up to `limit`. A call that takes longer, or panics, has an unknown outcome; the store's
/// port promises that a call may be dropped.
pub(crate) async fn bounded<T>(
    clock: &dyn Clock,
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    tokio::select! {
        biased;
        answer = AssertUnwindSafe(call).catch_unwind() => {
            answer.unwrap_or_else(|_| Err(StoreError::unknown_outcome("the store panicked")))
        }
        () = clock.sleep(limit) => {
            Err(StoreError::unknown_outcome(format!("no answer within {limit:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use queue_core::ErrorKind;

    use super::*;
    use crate::clock::TokioClock;

    const LIMIT: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_or_panics_has_an_unknown_outcome() {
        let clock = TokioClock::new();
        let hung = bounded(&clock, LIMIT, pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!(
            hung.to_string(),
            "the outcome is unknown, because the connection was lost around the commit: no answer within 3s"
        );
        let panicked = bounded::<()>(&clock, LIMIT, async { panic!("a bug of the store") }).await.unwrap_err();
        assert_eq!(panicked.kind(), ErrorKind::UnknownOutcome);
        assert_eq!(bounded(&clock, LIMIT, async { Ok(7) }).await.unwrap(), 7);
        assert_eq!(clock.monotonic(), LIMIT);
    }
}
