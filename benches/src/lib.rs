//! What needs no database to be measured: how many instructions the pure parts take (`cargo xtask bench --counts`), and what the
//! pool costs by itself (`cargo run --release -p queue-benches --example overhead`).

mod at_once;

pub use at_once::{AtOnce, TYPE};
