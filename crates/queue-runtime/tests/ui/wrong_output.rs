use queue_runtime::testing::memory_queue;
use queue_runtime::{Ctx, Pool, Result, Task, TaskType};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Export;

impl Task for Export {
    const TYPE: TaskType = TaskType::new("report.export");
    type Output = String;
}

async fn export(_: Export, _: Ctx) -> Result<u64> {
    Ok(7)
}

fn main() {
    let _ = Pool::new(&memory_queue()).handle(export);
}
