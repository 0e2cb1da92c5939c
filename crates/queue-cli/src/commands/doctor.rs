//! `queue doctor`

use queue_runtime::SystemClock;
use queue_runtime::queue_core::Clock as _;
use queue_runtime::queue_core::diagnose::{Examination, Level, worst};

use crate::args::Doctor;
use crate::database::Database;
use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::output::doctor::{FindingJson, lines, summary};

pub(super) async fn run(database: &Database, args: &Doctor, output: &mut Output) -> Outcome {
    let mut examination = Examination { lease: args.lease, ..Examination::at(SystemClock::new().wall()) };
    if args.full {
        examination.tasks_max = None;
    }
    let findings = database.diagnose(examination).await?;
    if output.is_json() {
        findings.iter().try_for_each(|finding| output.value(&FindingJson::new(finding)))?;
    } else {
        lines(&findings).into_iter().try_for_each(|line| output.line(line))?;
    }
    output.flush()?;
    match worst(&findings) {
        Level::Fail => Err(Failure::failed(summary(&findings))),
        _ if output.is_json() => Ok(()),
        _ => output.line(summary(&findings)),
    }
}
