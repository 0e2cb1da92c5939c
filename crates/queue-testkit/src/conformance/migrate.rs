//! Bringing the schema up to date.

use super::Subject;
use super::subject::{at_once, spec};

/// A fresh store is migrated: that is what `fresh` promises the suite. Migrating again applies nothing.
pub async fn is_done_and_can_be_repeated(store: Subject) {
    store.schema().await.unwrap().check().unwrap();
    assert_eq!(store.migrate().await.unwrap(), []);
    store.schema().await.unwrap().check().unwrap();
}

/// "Safe when many processes migrate at once": all of them come through, and what is stored stays.
pub async fn is_safe_when_many_do_it_at_once(store: Subject) {
    let id = store.put(spec()).await;
    let migrations = (0..8).map(|_| {
        let store = store.clone();
        async move { store.migrate().await.unwrap() }
    });
    for applied in at_once(migrations).await {
        assert_eq!(applied, []);
    }
    store.record(id).await;
}
