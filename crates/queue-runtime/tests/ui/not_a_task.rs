use queue_runtime::testing::memory_queue;
use queue_runtime::{Ctx, Pool, Result};

async fn welcome(_: String, _: Ctx) -> Result {
    Ok(())
}

fn main() {
    let queue = memory_queue();
    let _ = queue.enqueue(&"ada@example.com".to_owned());
    let _ = Pool::new(&queue).handle(welcome);
}
