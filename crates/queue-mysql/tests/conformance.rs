//! The MySQL store against the suite that every store passes, on MySQL and on MariaDB.

mod support;

mod mysql {
    use super::support::{Database, MYSQL};

    async fn fresh() -> Database {
        Database::fresh(MYSQL).await
    }

    queue_testkit::conformance!(fresh);
}

mod mariadb {
    use super::support::{Database, MARIADB};

    async fn fresh() -> Database {
        Database::fresh(MARIADB).await
    }

    queue_testkit::conformance!(fresh);
}

mod oceanbase {
    use super::support::{Database, OCEANBASE};

    async fn fresh() -> Database {
        Database::fresh(OCEANBASE).await
    }

    queue_testkit::conformance!(fresh);
}
