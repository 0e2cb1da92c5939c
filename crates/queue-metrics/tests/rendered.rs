//! What a scrape reads.

use std::collections::BTreeSet;
use std::time::Duration;

use queue_core::{ErrorKind, Observation, Observer as _, QueueName, Status, TaskType};
use queue_metrics::{Exporter, ExporterError, catalog};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

static MAIL: TaskType = TaskType::new("mail.welcome");
static REPORTS: QueueName = QueueName::new("reports");

/// One of each.
fn everything() -> Vec<Observation<'static>> {
    let task_type = Some(&MAIL);
    vec![
        Observation::Claimed { task_type, schedule_to_start: Duration::from_millis(40) },
        Observation::Processed { task_type, outcome: "completed", ran_for: Some(Duration::from_millis(300)) },
        Observation::Processed { task_type, outcome: "retried", ran_for: Some(Duration::from_secs(2)) },
        Observation::Processed { task_type: None, outcome: "unregistered", ran_for: None },
        Observation::Enqueued { task_type: &MAIL, count: 3 },
        Observation::InFlight(7),
        Observation::QueueDepth { queue: &REPORTS, status: Status::Queued, count: 12 },
        Observation::QueueDepth { queue: &REPORTS, status: Status::Failed, count: 1 },
        Observation::OldestReady { queue: &REPORTS, age: Duration::from_millis(1_500) },
        Observation::SessionFenced,
        Observation::Stale { count: 2 },
        Observation::ClaimReturned(Duration::from_millis(3)),
        Observation::SettleBatch(64),
        Observation::StoreFailed(ErrorKind::Unavailable),
        Observation::StoreRetried { kind: "deadlock", count: 5 },
        Observation::Pruned { status: Status::Completed, count: 9 },
        Observation::Overrun { task_type: None },
    ]
}

fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "no line {line:?} in:\n{text}");
    }
}

#[test]
fn every_metric_is_rendered_with_its_labels() {
    let exporter = Exporter::new();
    let metrics = exporter.metrics();
    for observation in everything() {
        metrics.observe(&observation);
    }
    let text = exporter.render();
    assert_lines(
        &text,
        &[
            "tasks_claimed_total{type=\"mail.welcome\"} 1",
            "task_schedule_to_start_seconds_bucket{type=\"mail.welcome\",le=\"0.025\"} 0",
            "task_schedule_to_start_seconds_bucket{type=\"mail.welcome\",le=\"0.05\"} 1",
            "tasks_processed_total{type=\"mail.welcome\",outcome=\"completed\"} 1",
            "tasks_processed_total{type=\"mail.welcome\",outcome=\"retried\"} 1",
            "tasks_processed_total{type=\"unknown\",outcome=\"unregistered\"} 1",
            "task_duration_seconds_bucket{type=\"mail.welcome\",le=\"0.5\"} 1",
            "task_duration_seconds_bucket{type=\"mail.welcome\",le=\"3600\"} 2",
            "task_duration_seconds_sum{type=\"mail.welcome\"} 2.3",
            "task_duration_seconds_count{type=\"mail.welcome\"} 2",
            "tasks_enqueued_total{type=\"mail.welcome\"} 3",
            "tasks_in_flight 7",
            "queue_depth{queue=\"reports\",status=\"queued\"} 12",
            "queue_depth{queue=\"reports\",status=\"failed\"} 1",
            "queue_oldest_ready_seconds{queue=\"reports\"} 1.5",
            "sessions_fenced_total 1",
            "stale_settlements_total 2",
            "claim_duration_seconds_bucket{le=\"0.002\"} 0",
            "claim_duration_seconds_bucket{le=\"0.005\"} 1",
            "settle_batch_size_bucket{le=\"50\"} 0",
            "settle_batch_size_bucket{le=\"100\"} 1",
            "store_errors_total{kind=\"unavailable\"} 1",
            "store_retries_total{kind=\"deadlock\"} 5",
            "tasks_pruned_total{status=\"completed\"} 9",
            "task_overruns_total{type=\"unknown\"} 1",
            "# TYPE task_duration_seconds histogram",
            "# TYPE tasks_in_flight gauge",
            "# TYPE tasks_claimed_total counter",
        ],
    );
    for metric in catalog::ALL {
        assert_lines(&text, &[&format!("# HELP {} {}", metric.name, metric.help)]);
    }
}

#[test]
fn nothing_is_rendered_that_is_not_in_the_catalogue() {
    let exporter = Exporter::new();
    let metrics = exporter.metrics();
    for observation in everything() {
        metrics.observe(&observation);
    }
    let text = exporter.render();
    let typed =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect::<BTreeSet<_>>();
    assert_eq!(typed, catalog::ALL.iter().map(|metric| metric.name).collect::<BTreeSet<_>>());
}

#[test]
fn types_beyond_a_hundred_share_a_label() {
    let exporter = Exporter::new();
    let metrics = exporter.metrics();
    for number in 0..150 {
        let task_type = TaskType::parse(format!("type-{number:03}")).unwrap();
        metrics.observe(&Observation::Enqueued { task_type: &task_type, count: 1 });
        metrics.observe(&Observation::Claimed { task_type: Some(&task_type), schedule_to_start: Duration::ZERO });
    }
    let text = exporter.render();
    assert_lines(
        &text,
        &[
            "tasks_enqueued_total{type=\"type-099\"} 1",
            "tasks_enqueued_total{type=\"other\"} 50",
            "tasks_claimed_total{type=\"other\"} 50",
        ],
    );
    assert!(!text.contains("type-100"), "{text}");
}

#[test]
fn what_a_producer_names_leaves_the_labels_of_registered_types_alone() {
    let exporter = Exporter::new();
    let metrics = exporter.metrics();
    for number in 0..150 {
        let task_type = TaskType::parse(format!("type-{number}")).unwrap();
        metrics.observe(&Observation::Enqueued { task_type: &task_type, count: 1 });
    }
    metrics.observe(&Observation::Claimed { task_type: Some(&MAIL), schedule_to_start: Duration::ZERO });
    assert_lines(&exporter.render(), &["tasks_claimed_total{type=\"mail.welcome\"} 1"]);
}

#[test]
fn queues_beyond_a_hundred_are_summed() {
    let exporter = Exporter::new();
    let metrics = exporter.metrics();
    for round in 1..=2 {
        for number in 0..110 {
            let queue = QueueName::parse(format!("queue-{number:03}")).unwrap();
            metrics.observe(&Observation::QueueDepth { queue: &queue, status: Status::Running, count: 10 * round });
            metrics.observe(&Observation::OldestReady { queue: &queue, age: Duration::from_secs(number) });
        }
    }
    let text = exporter.render();
    assert_lines(
        &text,
        &[
            "queue_depth{queue=\"queue-099\",status=\"running\"} 20",
            "queue_depth{queue=\"other\",status=\"running\"} 200",
            "queue_oldest_ready_seconds{queue=\"other\"} 109",
        ],
    );
    assert!(!text.contains("queue-100"), "{text}");
}

#[tokio::test]
async fn is_served_over_http() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exporter = Exporter::serve(free).unwrap();
    exporter.metrics().observe(&Observation::InFlight(4));
    let mut stream = tokio::net::TcpStream::connect(free).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: queue\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\ntasks_in_flight 4\n"), "{answer}");

    let taken = Exporter::serve(free).unwrap_err();
    assert!(matches!(taken, ExporterError::Listen { address, .. } if address == free));
    assert!(taken.to_string().starts_with(&format!("cannot serve metrics on {free}: ")), "{taken}");
}

/// The only test that touches the global recorder.
#[test]
fn the_global_recorder_is_used_when_asked() {
    let exporter = Exporter::new();
    exporter.install().unwrap();
    queue_metrics::Metrics::global().observe(&Observation::InFlight(9));
    assert_lines(&exporter.render(), &["tasks_in_flight 9"]);
    assert!(matches!(Exporter::default().install(), Err(ExporterError::Installed)));
    assert!(format!("{exporter:?} {:?}", exporter.metrics()).contains("own"));
}
