use queue_runtime::{Ctx, Queue, Result, Task, TaskType};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Welcome;

impl Task for Welcome {
    const TYPE: TaskType = TaskType::new("mail.welcome");
    type Output = ();
}

struct Transaction;

async fn enqueue(queue: Queue, tx: &mut Transaction) {
    let _ = queue.enqueue(&Welcome).within(tx).await;
}

async fn welcome(_: Welcome, cx: Ctx<Queue>) -> Result {
    let mut tx = Transaction;
    cx.state().complete(&cx, ()).within(&mut tx).await?;
    Ok(())
}

fn main() {
    let _ = (enqueue, welcome);
}
