//! The MySQL store does what the reference store does, whatever the order of calls, on MySQL and on MariaDB.

mod support;

use queue_testkit::model::{self, Clients};
use support::Database;

/// Sequences in a regular run; `QUEUE_MODEL_CASES` sets another number.
const CASES: u32 = 40;

/// A database with two stores on it, as two processes have them.
async fn clients(variable: &str) -> Clients<Database> {
    let database = Database::fresh(variable).await;
    let another = database.another().await;
    Clients::of(database).and(another)
}

#[test]
fn agrees_with_the_model() {
    model::run(async || clients(support::MYSQL).await, CASES);
}

mod mariadb {
    use super::*;

    #[test]
    fn agrees_with_the_model() {
        model::run(async || clients(support::MARIADB).await, CASES);
    }
}
