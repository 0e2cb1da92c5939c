#![deny(unused_must_use)]

use queue_runtime::testing::memory_queue;
use queue_runtime::{Task, TaskType};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Welcome;

impl Task for Welcome {
    const TYPE: TaskType = TaskType::new("mail.welcome");
    type Output = ();
}

fn main() {
    memory_queue().enqueue(&Welcome);
}
