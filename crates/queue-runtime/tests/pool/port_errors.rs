//! What the ports may answer, one error at a time.

use mockall::predicate::{always, eq};
use queue_core::ErrorKind;
use queue_runtime::{StartError, Status};

use crate::faulty::{Call, Fault, MockStrikes, mocked};
use crate::support::{On, World, secs};

#[tokio::test(start_paused = true)]
async fn a_schema_that_is_missing_is_told_before_anything_starts() {
    let world = World::new();
    let mut faults = MockStrikes::new();
    faults.expect_strike().with(eq(Call::Schema), eq(1)).times(1).return_const(None);
    let store = mocked(&world.store.clone().without_schema(), faults);
    let error = world.pool_over(store).on("a", async |_| Ok(())).start().await.unwrap_err();
    assert_eq!(error.to_string(), "the database has no queue schema yet; migrate it first");
    assert!(world.queue.store().sessions().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_at_the_start_is_an_error_and_not_a_wait() {
    let world = World::new();
    for call in [Call::Schema, Call::OpenSession] {
        let mut faults = MockStrikes::new();
        faults.expect_strike().with(eq(call), eq(1)).times(1).return_const(Some(Fault::Unavailable));
        faults.expect_strike().with(always(), always()).return_const(None);
        let store = mocked(&world.store, faults);
        let error = world.pool_over(store).on("a", async |_| Ok(())).start().await.unwrap_err();
        assert!(matches!(error, StartError::Store(error) if error.kind() == ErrorKind::Unavailable));
    }
}

#[tokio::test(start_paused = true)]
async fn progress_that_cannot_be_written_is_nobodys_failure() {
    let world = World::new();
    let task = world.enqueue("a", |_| {}).await;
    let mut faults = MockStrikes::new();
    faults
        .expect_strike()
        .with(eq(Call::Progress), always())
        .times(2..)
        .returning(|_, nth| if nth == 1 { Some(Fault::Hang) } else { Some(Fault::Unavailable) });
    faults.expect_strike().with(always(), always()).return_const(None);
    let store = mocked(&world.store, faults);
    let pool = world.pool_over(store).on("a", async |cx: queue_runtime::Ctx| {
        for percent in 0..90 {
            cx.progress(percent, "");
            tokio::time::sleep(secs(1)).await;
        }
        Ok(())
    });
    let done = pool.drain().await.unwrap();
    assert_eq!(done.completed, 1);
    assert_eq!(world.task(task).await.state.status, Status::Completed);
}
