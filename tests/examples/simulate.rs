//! Runs seeds of the simulation; `cargo xtask simulate` calls it.

use std::process::ExitCode;

use queue_tests::simulation::campaign::Wish;

fn main() -> ExitCode {
    match Wish::parse(std::env::args().skip(1)).and_then(Wish::fulfil) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
