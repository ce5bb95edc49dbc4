//! gpu-check: what this machine's GPU can do, measured, as one JSON document; starts on machines without a GPU too.
//!
//! Every measurement runs in a process of its own, so that one that fails, faults the device or hangs costs its own field
//! only. The process that was started never touches the driver: it starts the others, waits for each at most for its
//! limit, and composes the document. docs/gpu.md says what the fields mean.

mod bounded;
mod json;
mod measure;
mod options;
mod ptx;
mod report;
mod samples;

use std::io::Write;
use std::process::ExitCode;

use measure::{Measured, peer};
use options::{Options, Role};

/// The document is complete: every measurement succeeded, or there is no GPU.
const COMPLETE: u8 = 0;
/// The document has errors in it (of a measuring process: standard error says why it failed).
pub(crate) const INCOMPLETE: u8 = 1;
/// A measuring process found no GPU; standard error says how it knows.
pub(crate) const ABSENT: u8 = 3;
/// A measuring process has a result with errors in it.
pub(crate) const PARTIAL: u8 = 4;
/// The command line makes no sense (EX_USAGE).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Err(mistake) => end(USAGE, "", &format!("gpu-check: {mistake}\n\n{}", options::HELP)),
        Ok(options) => match &options.role {
            Role::Help => end(COMPLETE, options::HELP, ""),
            Role::Report => report(&options),
            Role::Measure(measurement) => {
                bounded::die_after(options.limit);
                measured(measurement.run(&options))
            }
            Role::Peer => {
                bounded::die_after(options.limit);
                measured(peer::run(&options))
            }
        },
    }
}

fn report(options: &Options) -> ExitCode {
    let report = report::Report::take(options);
    let code = if report.is_complete() { COMPLETE } else { INCOMPLETE };
    end(code, &format!("{}\n", report.to_json()), "")
}

/// How a measuring process hands its result to the one that started it.
fn measured(result: Result<Measured, measure::Failure>) -> ExitCode {
    match result {
        Ok(values) => end(if values.has_error() { PARTIAL } else { COMPLETE }, &values.to_string(), ""),
        Err(failure) if failure.is_absence() => end(ABSENT, "", &failure.to_string()),
        Err(failure) => end(INCOMPLETE, "", &failure.to_string()),
    }
}

/// Writes and ends. Who closed our output does not want it, and there is nobody else to tell.
fn end(code: u8, output: &str, complaint: &str) -> ExitCode {
    let written = std::io::stdout().lock().write_all(output.as_bytes());
    if !complaint.is_empty() {
        let _closed = writeln!(std::io::stderr().lock(), "{complaint}");
    }
    ExitCode::from(if written.is_ok() { code } else { INCOMPLETE })
}
