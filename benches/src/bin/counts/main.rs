//! The suite of instruction counts. Without an argument it lists its cases, each with its number of steps; with a case's name it
//! runs that case once. `cargo xtask bench --counts` runs it under valgrind, which counts what happens within [`counted`].
//!
//! A case must be the same each time: no clock, no randomness of the machine's, one thread.

mod domain;
mod pool;

use std::hint::black_box;
use std::process::ExitCode;

/// A case: its name, and what makes it ready.
type Case = (&'static str, fn() -> Work);

/// What is counted, ready to run.
struct Work {
    /// How many steps it is of.
    steps: usize,
    run: Box<dyn FnOnce()>,
}

impl Work {
    fn new(steps: usize, run: impl FnOnce() + 'static) -> Self {
        Self { steps, run: Box::new(run) }
    }

    /// So many times the same.
    fn repeat<T>(times: usize, step: impl Fn() -> T + 'static) -> Self {
        Self::new(times, move || {
            for _ in 0..times {
                black_box(step());
            }
        })
    }
}

/// Valgrind counts from the entry of the function of this name to its end.
#[inline(never)]
fn counted(work: Box<dyn FnOnce()>) {
    work();
}

fn main() -> ExitCode {
    let cases = || domain::CASES.iter().chain(pool::CASES);
    let Some(wanted) = std::env::args().nth(1) else {
        for (name, prepare) in cases() {
            println!("{name} {}", prepare().steps);
        }
        return ExitCode::SUCCESS;
    };
    let Some((_, prepare)) = cases().find(|(name, _)| *name == wanted) else {
        eprintln!("error: there is no case {wanted}");
        return ExitCode::FAILURE;
    };
    counted(prepare().run);
    ExitCode::SUCCESS
}
