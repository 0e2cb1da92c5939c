//! Lists, page by page.

use std::time::Duration;

use queue_core::admin::{Action, Filter, Page};
use queue_core::{
    FailureReason, Payload, QueueName, Settlement, Start, Status, TaskId, TaskRecord, TaskResult, TaskSpec,
};

use super::Subject;
use super::subject::{OTHER, TYPE, complete, in_queue, of_type, spec};

/// Every page of this size, one after the other.
async fn paged(store: &Subject, filter: &Filter, limit: usize) -> Vec<TaskRecord> {
    let mut all: Vec<TaskRecord> = Vec::new();
    loop {
        let after = all.last().map(|last| filter.position(last));
        let page = store.list(filter.clone(), Page { after, limit }).await.unwrap();
        assert!(page.len() <= limit);
        if let (Some(after), Some(first)) = (after, page.first()) {
            assert!(after < filter.position(first), "a page begins after the one before");
        }
        let last = page.len() < limit;
        all.extend(page);
        if last {
            return all;
        }
    }
}

fn of_status(status: Status) -> Filter {
    Filter { status: Some(status), ..Filter::default() }
}

/// Tasks of every status, type and queue.
async fn all_sorts(store: &Subject) -> Vec<TaskId> {
    let mut specs = vec![spec(), in_queue("b"), of_type(OTHER), TaskSpec { task_type: OTHER, ..in_queue("b") }];
    specs.extend([40, 10, 10].map(|secs| TaskSpec { start: Start::After(Duration::from_secs(secs)), ..spec() }));
    let mut ids = Vec::new();
    let session = store.session().await;
    for kind in 0..4 {
        let batch = store.put_all(specs.clone()).await;
        ids.extend(batch.iter().copied());
        if kind == 0 {
            continue;
        }
        let mut request = store.request(session, 4);
        request.scope.types = [TYPE, OTHER].into();
        // What the first round left waiting comes first.
        for task in store.ask(request).await.tasks {
            match kind {
                1 => store.end(&task, complete()).await,
                2 => {
                    let reason = if task.task_type == TYPE { FailureReason::Rejected } else { FailureReason::Panicked };
                    store.end(&task, Settlement::Fail { reason, error: Some("no".into()) }).await;
                }
                _ => {}
            }
        }
        if kind == 3 {
            store.act_one(batch[6], Action::Cancel).await;
        }
    }
    ids
}

/// Lists come in ascending order of [`Filter::position`], for every status and for any, "without gaps or repeats from page to
/// page", whatever the size of a page.
pub async fn lists_are_in_order_and_have_no_gaps(store: Subject) {
    let ids = all_sorts(&store).await;
    let mut records = Vec::new();
    for id in ids {
        records.push(store.record(id).await);
    }
    let mut filters = vec![Filter::default()];
    filters.extend(Status::ALL.iter().map(|status| of_status(*status)));
    for filter in filters {
        let mut wanted: Vec<_> = records.iter().filter(|record| filter.matches(record)).collect();
        wanted.sort_by_key(|record| filter.position(record));
        let wanted: Vec<_> = wanted.into_iter().map(|record| record.id).collect();
        assert!(!wanted.is_empty(), "the case has tasks for {filter:?}");
        for limit in [1, 2, 3, 100] {
            let listed: Vec<_> = paged(&store, &filter, limit).await.iter().map(|record| record.id).collect();
            assert_eq!(listed, wanted, "{filter:?} by {limit}");
        }
    }
}

/// "Every condition given must hold", in every combination; a reason alone means failed.
pub async fn every_condition_must_hold(store: Subject) {
    let ids = all_sorts(&store).await;
    let mut records = Vec::new();
    for id in ids {
        records.push(store.record(id).await);
    }
    let statuses = [None, Some(Status::Queued), Some(Status::Running), Some(Status::Completed), Some(Status::Failed)];
    let reasons = [None, Some(FailureReason::Rejected), Some(FailureReason::Crashed)];
    let types = [None, Some(TYPE), Some(queue_core::TaskType::new("unknown"))];
    let queues = [None, Some(QueueName::new("b")), Some(QueueName::new("unknown"))];
    for status in statuses {
        for reason in reasons {
            for task_type in &types {
                for queue in &queues {
                    let filter = Filter { status, reason, task_type: task_type.clone(), queue: queue.clone() };
                    let mut wanted: Vec<_> = records.iter().filter(|record| filter.matches(record)).collect();
                    wanted.sort_by_key(|record| filter.position(record));
                    let wanted: Vec<_> = wanted.into_iter().map(|record| record.id).collect();
                    assert_eq!(store.ids(filter.clone()).await, wanted, "{filter:?}");
                }
            }
        }
    }
}

/// A list tells what [`get`](queue_core::TaskAdmin::get) tells, but for payload and result, which are left empty. Whether it names
/// the worker is left open.
pub async fn a_list_leaves_payload_and_result_empty(store: Subject) {
    let payload = Payload::json("{\"secret\": 1}");
    let (_, task) = store.running(TaskSpec { payload: payload.clone(), ..spec() }).await;
    store.end(&task, Settlement::Complete { result: TaskResult::Value(b"1".as_slice().into()) }).await;
    let waiting = store.put(TaskSpec { payload, ..spec() }).await;
    for record in paged(&store, &Filter::default(), 10).await {
        assert!([task.id, waiting].contains(&record.id));
        let whole = store.record(record.id).await;
        assert_eq!((&record.payload, &record.result), (&Payload::default(), &TaskResult::None));
        let blank = TaskRecord { payload: Payload::default(), result: TaskResult::None, worker: None, ..whole };
        assert_eq!(TaskRecord { worker: None, ..record }, blank);
    }
}

/// A page of nothing, a position past the end, and a list of what is not there.
pub async fn empty_pages_are_fine(store: Subject) {
    let page = Page { after: None, limit: 10 };
    for filter in [Filter::default(), of_status(Status::Queued), of_status(Status::Failed)] {
        assert_eq!(store.list(filter, page).await.unwrap(), []);
    }
    store.put(spec()).await;
    let filter = of_status(Status::Queued);
    assert_eq!(store.list(filter.clone(), Page { after: None, limit: 0 }).await.unwrap(), []);
    for (after, found) in [((i64::MAX, i64::MAX), 0), ((i64::MIN, i64::MIN), 1)] {
        let page = Page { after: Some(after), limit: 10 };
        assert_eq!(store.list(filter.clone(), page).await.unwrap().len(), found);
        assert_eq!(store.list(Filter::default(), page).await.unwrap().len(), found);
    }
}
