//! URLs that name several hosts, on one server behind proxies. The failover test of `tests` has a real group.

mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use queue_core::{ErrorKind, StoreError, TaskStore as _};
use queue_mysql::MySqlStore;
use queue_testkit::conformance::Fixture as _;
use sqlx::{Connection as _, Executor as _};
use support::{Database, MARIADB, MYSQL};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to the server that can be made to hang, as a server does that is frozen or cut off.
struct Proxy {
    place: String,
    open: Arc<AtomicUsize>,
    frozen: watch::Sender<bool>,
}

impl Proxy {
    async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let (frozen, is_frozen) = watch::channel(false);
        let (server, open) = (server.to_owned(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, mut is_frozen, open) = (server.clone(), is_frozen.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    open.fetch_add(1, Ordering::SeqCst);
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let freeze = async {
                        let _ = is_frozen.wait_for(|frozen| *frozen).await;
                    };
                    tokio::select! {
                        biased;
                        () = freeze => pending().await,
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { place, open, frozen }
    }

    fn is_used(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }
}

/// The parts of a test's URL: what stands before the host, the host, and the database.
fn parts(url: &str) -> (String, String, String) {
    let (before, rest) = url.rsplit_once('@').unwrap();
    let (host, database) = rest.split_once('/').unwrap();
    (before.to_owned(), host.to_owned(), database.to_owned())
}

/// A port that accepts and says nothing, and one on which nobody listens.
async fn silent_and_closed() -> (TcpListener, String, String) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = silent.local_addr().unwrap().to_string();
    (silent, place, "127.0.0.1:1".to_owned())
}

async fn refused(url: &str) -> StoreError {
    MySqlStore::connect(url).await.unwrap_err()
}

#[tokio::test]
async fn dead_hosts_are_passed_over_in_any_order() {
    pass_over_dead_hosts(MYSQL).await;
}

#[tokio::test]
async fn dead_hosts_are_passed_over_in_any_order_on_mariadb() {
    pass_over_dead_hosts(MARIADB).await;
}

async fn pass_over_dead_hosts(variable: &str) {
    let database = Database::fresh(variable).await;
    let (before, host, name) = parts(&database.url());
    let (_listens, silent, closed) = silent_and_closed().await;
    for hosts in [[&silent, &closed, &host], [&host, &silent, &closed]] {
        let url = format!("{before}@{},{},{}/{name}", hosts[0], hosts[1], hosts[2]);
        let store = MySqlStore::connect(&url).await.unwrap();
        store.reserve_ids(1).await.unwrap();
        assert_eq!(store.time().await.unwrap().server, database.store().time().await.unwrap().server);
    }
}

#[tokio::test]
async fn when_no_host_takes_writes_each_has_its_say() {
    let database = Database::empty(MYSQL).await;
    let (before, host, name) = parts(&database.url());
    let (_listens, silent, closed) = silent_and_closed().await;
    let error = refused(&format!("mysql://app:s3cret@{closed},{silent}/{name}")).await;
    assert_eq!(
        error.to_string(),
        format!(
            "the store is unavailable: mysql://app@{closed},{silent}/{name}: none of its hosts takes writes: \
             {closed}: connection refused; {silent}: no answer within 2 s"
        )
    );
    let denied = refused(&format!("mysql://app:s3cret@{host},{closed}/{name}")).await;
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied}");
    assert!(!format!("{denied} {denied:?}").contains("s3cret"), "the password is told: {denied:?}");
    let absent = refused(&format!("{before}@{closed},{host}/{name}_none")).await;
    assert_eq!(absent.kind(), ErrorKind::Other, "{absent}");
}

/// One server under two names: whichever answers first, a call that takes long has not moved.
#[tokio::test]
async fn a_slow_call_is_let_be_where_the_writes_still_are() {
    let database = Database::fresh(MYSQL).await;
    let (before, host, name) = parts(&database.url());
    let hosts = [Proxy::to(&host).await, Proxy::to(&host).await, Proxy::to(&host).await, Proxy::to(&host).await];
    let places = hosts.each_ref().map(|proxy| proxy.place.as_str()).join(",");
    let wait = Duration::from_secs(20);
    let store = MySqlStore::builder().lock_wait(wait).connect(&format!("{before}@{places}/{name}")).await.unwrap();
    store.reserve_ids(1).await.unwrap();
    let mut other = database.user().await;
    let mut held = other.begin().await.unwrap();
    held.execute("SELECT * FROM queue_id_block FOR UPDATE").await.unwrap();
    let slow = async { store.reserve_ids(1).await.unwrap() };
    let release = async {
        // It is looked about every two seconds.
        tokio::time::sleep(Duration::from_secs(7)).await;
        held.rollback().await.unwrap();
    };
    tokio::join!(slow, release);
    assert_eq!(store.retries(), []);
}

#[tokio::test]
async fn a_call_that_hangs_goes_on_where_the_writes_are() {
    let database = Database::fresh(MYSQL).await;
    let (before, host, name) = parts(&database.url());
    let (one, two) = (Proxy::to(&host).await, Proxy::to(&host).await);
    let store = MySqlStore::connect(&format!("{before}@{},{}/{name}", one.place, two.place)).await.unwrap();
    // The connection that was not chosen is closed soon.
    while one.is_used() == two.is_used() {
        tokio::task::yield_now().await;
    }
    let (used, other) = if one.is_used() { (&one, &two) } else { (&two, &one) };
    used.frozen.send_replace(true);
    let first = store.reserve_ids(1).await.expect("the call is made again on the other host");
    assert!(other.is_used());
    assert_eq!(store.retries(), [("moved", 1)]);
    // Connections of before are not used again, and nothing waits any more.
    let second = store.reserve_ids(1).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(store.retries(), [("moved", 1)]);
}
