//! Processes that wake each other through the server. Nothing in here depends on how long anything takes: where a wake-up does not
//! come, the test hangs.

mod support;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use queue_core::{Due, QueueName, Queues, Scope, TaskStore as _, TaskType, WakeChannel};
use queue_mysql::MySqlStore;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};
use support::{Database, MARIADB, MYSQL, server};
use tokio::time::sleep;

const A: TaskType = TaskType::new("wake.a");
const MAIL: QueueName = QueueName::new("mail");
/// How often something is looked for that is not told.
const LOOK: Duration = Duration::from_millis(10);

async fn channel(url: &str) -> Arc<dyn WakeChannel> {
    MySqlStore::connect(&format!("{url}?wake=on")).await.unwrap().wake_channel().unwrap()
}

fn due(queue: &QueueName) -> Due {
    let mut due = Due::default();
    due.add(queue, &A);
    due
}

/// Statements that run in this database, of whichever account.
async fn statements(conn: &mut MySqlConnection, like: &str) -> Vec<(u64, String)> {
    let sql = format!(
        "SELECT CAST(ID AS UNSIGNED), CAST(INFO AS BINARY) FROM information_schema.processlist WHERE DB = DATABASE() \
         AND ID <> CONNECTION_ID() AND STATE = 'User sleep' AND INFO LIKE '{like}'"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await.unwrap();
    let text = |row: &sqlx::mysql::MySqlRow| String::from_utf8(row.get_unchecked(1)).unwrap();
    rows.iter().map(|row| (row.get_unchecked(0), text(row))).collect()
}

/// Waits until so many sleep.
async fn sleepers(conn: &mut MySqlConnection, count: usize) {
    while statements(conn, "SELECT /*queue.wake %").await.len() != count {
        sleep(LOOK).await;
    }
}

async fn wake_one_another(variable: &str) {
    let database = Database::empty(variable).await;
    let mut looks = database.user().await;
    let (producer, worker) = (channel(&database.url()).await, channel(&database.url()).await);
    let (all, mail) = (Scope::of([A]), Scope { queues: Queues::Named([MAIL].into()), ..Scope::of([A]) });
    // Nobody sleeps: that is no trouble, and costs the next announcement a little patience.
    assert!(producer.announce(&due(&MAIL)).await < Duration::from_secs(1));
    for scope in [&all, &mail, &all] {
        let mut woken = pin!(worker.listen(scope));
        let announced = async {
            sleepers(&mut looks, 1).await;
            producer.announce(&due(&MAIL)).await
        };
        tokio::join!(woken.as_mut(), announced);
    }
    // Who is not concerned sleeps on, and so does the channel that announces.
    let (other, unknown) = (channel(&database.url()).await, TaskType::new("wake.b"));
    let of_b = Scope::of([unknown]);
    let (mut one, mut two) = (pin!(worker.listen(&mail)), pin!(other.listen(&of_b)));
    let asleep = async {
        sleepers(&mut looks, 2).await;
        let before = statements(&mut looks, "SELECT /*queue.wake %").await;
        producer.announce(&due(&QueueName::DEFAULT)).await;
        worker.announce(&due(&MAIL)).await;
        assert_eq!(statements(&mut looks, "SELECT /*queue.wake %").await, before);
    };
    tokio::select! {
        biased;
        () = one.as_mut() => panic!("it is of another queue"),
        () = two.as_mut() => panic!("it is of another type"),
        () = asleep => {}
    }
    tokio::join!(
        async {
            producer.announce(&Due::anything()).await;
            producer.announce(&Due::anything()).await;
        },
        one,
        two
    );
}

#[tokio::test]
async fn processes_wake_one_another() {
    wake_one_another(MYSQL).await;
}

#[tokio::test]
async fn processes_wake_one_another_on_mariadb() {
    wake_one_another(MARIADB).await;
}

/// Users' statements that sleep too, other databases and other accounts are let be.
async fn hit_nothing_else(variable: &str) {
    let (database, elsewhere) = (Database::empty(variable).await, Database::empty(variable).await);
    let fresh = Database::fresh(variable).await;
    let mut looks = database.user().await;
    let bystanders = [
        (database.url(), "SELECT SLEEP(30)"),
        (database.url(), "SELECT SLEEP(30), 'SELECT /*queue.wake 0.0 q:* t:* */'"),
        (elsewhere.url(), "SELECT /*queue.wake 0.0 q:* t:* */ SLEEP(30)"),
    ];
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    for (url, sql) in bystanders {
        let mut conn = MySqlConnection::connect(&url).await.unwrap();
        let told = told.clone();
        tokio::spawn(async move {
            let _ = sqlx::raw_sql(sql).fetch_all(&mut conn).await;
            let _ = told.send(sql);
        });
    }
    while statements(&mut looks, "SELECT %").await.len() != 2 {
        sleep(LOOK).await;
    }
    let (producer, worker) = (channel(&database.url()).await, channel(&database.url()).await);
    for _ in 0..10 {
        let scope = Scope::of([A]);
        tokio::join!(worker.listen(&scope), async {
            sleepers(&mut looks, 1).await;
            producer.announce(&Due::anything()).await;
            producer.announce(&Due::anything()).await;
        });
    }
    assert!(ended.try_recv().is_err(), "a statement of a user's was killed");

    // Another account on the same database neither sees the sleeper nor is told that it may not.
    let stranger = channel(&fresh.account_url()).await;
    let worker = channel(&fresh.url()).await;
    let mut looks = fresh.user().await;
    let scope = Scope::of([A]);
    let asleep = async {
        sleepers(&mut looks, 1).await;
        assert!(stranger.announce(&Due::anything()).await < Duration::from_secs(1));
        assert_eq!(statements(&mut looks, "SELECT /*queue.wake %").await.len(), 1);
    };
    tokio::select! {
        biased;
        () = worker.listen(&scope) => panic!("another account woke it"),
        () = asleep => {}
    }
    // The worker's own rights are enough for its own.
    let (producer, worker) = (channel(&fresh.account_url()).await, channel(&fresh.account_url()).await);
    sleepers(&mut looks, 0).await;
    tokio::join!(worker.listen(&scope), async {
        sleepers(&mut looks, 1).await;
        producer.announce(&Due::anything()).await
    });
}

#[tokio::test]
async fn nothing_else_is_killed() {
    hit_nothing_else(MYSQL).await;
}

#[tokio::test]
async fn nothing_else_is_killed_on_mariadb() {
    hit_nothing_else(MARIADB).await;
}

/// A sleeper whose listener goes is ended; one whose connection is killed sleeps on another.
async fn come_and_go(variable: &str) {
    let database = Database::empty(variable).await;
    let mut looks = database.user().await;
    let worker = channel(&database.url()).await;
    let scope = Scope::of([A]);
    {
        let mut listening = pin!(worker.listen(&scope));
        tokio::select! {
            biased;
            () = listening.as_mut() => panic!("nobody woke it"),
            () = sleepers(&mut looks, 1) => {}
        }
    }
    sleepers(&mut looks, 0).await;
    let mut listening = pin!(worker.listen(&scope));
    let killed = async {
        sleepers(&mut looks, 1).await;
        let before = statements(&mut looks, "SELECT /*queue.wake %").await;
        sqlx::raw_sql(AssertSqlSafe(format!("KILL {}", before[0].0))).execute(&mut looks).await.unwrap();
        loop {
            let now = statements(&mut looks, "SELECT /*queue.wake %").await;
            if now.iter().any(|(id, _)| *id != before[0].0) {
                return;
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        () = killed => {}
        () = listening.as_mut() => {} // a kill of the connection may look like one of its sleep
    }
}

#[tokio::test]
async fn sleepers_come_and_go() {
    come_and_go(MYSQL).await;
}

#[tokio::test]
async fn sleepers_come_and_go_on_mariadb() {
    come_and_go(MARIADB).await;
}

#[tokio::test]
async fn it_is_off_unless_it_is_turned_on() {
    let url = format!("{}/mysql", server(MYSQL));
    assert!(MySqlStore::connect(&url).await.unwrap().wake_channel().is_none());
    let on = || MySqlStore::builder().wake_channel(true);
    assert!(on().connect(&url).await.unwrap().wake_channel().is_some());
    assert!(on().connect(&format!("{url}?wake=off")).await.unwrap().wake_channel().is_none());
}
