use queue_runtime::testing::memory_queue;
use queue_runtime::{Ctx, Pool, Result, Task, TaskType};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Welcome;

impl Task for Welcome {
    const TYPE: TaskType = TaskType::new("mail.welcome");
    type Output = ();
}

struct Mailer;

async fn welcome(_: Welcome, cx: Ctx<Mailer>) -> Result {
    let Mailer = cx.state();
    Ok(())
}

fn main() {
    let _ = Pool::new(&memory_queue()).handle(welcome);
}
