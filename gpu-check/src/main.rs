//! gpu-check: what this machine's GPU can do, measured, as one JSON document; starts on machines without a GPU too.
//!
//! Every measurement runs in a process of its own, so that one that fails, faults the device or hangs costs its own field
//! only. The process that was started never touches the driver: it starts the others, waits for each at most for its
//! limit, and composes the document. docs/gpu.md says what the fields mean.

mod bounded;
mod measure;
mod options;
mod ptx;
mod report;
mod samples;
mod value;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;

use options::Options;
use value::has_error;

/// The document is complete: every measurement succeeded, or there is no GPU.
pub(crate) const COMPLETE: u8 = 0;
/// The document has errors in it (of a measuring process: standard error says why it failed).
pub(crate) const INCOMPLETE: u8 = 1;
/// A measuring process found no GPU; standard error says how it knows.
pub(crate) const ABSENT: u8 = 3;
/// A measuring process has a result with errors in it.
pub(crate) const PARTIAL: u8 = 4;
/// The command line makes no sense (EX_USAGE).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(message) => {
            // Help is no error; clap knows the difference.
            let code = if message.use_stderr() { USAGE } else { COMPLETE };
            return ExitCode::from(if message.print().is_ok() { code } else { INCOMPLETE });
        }
    };
    if options.measure.is_none() && !options.peer {
        return written(&report::document(&options), INCOMPLETE);
    }
    // A measuring process hands its result to the one that started it: on standard output, or why there is none on
    // standard error.
    bounded::die_after(options.limit);
    let result = match options.measure {
        Some(measurement) => measurement.run(&options),
        None => measure::peer::run(&options),
    };
    match result {
        Ok(result) => written(&result, PARTIAL),
        Err(failure) => {
            let _closed = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(if failure.is_absence() { ABSENT } else { INCOMPLETE })
        }
    }
}

/// Writes and ends, with the code given if there are errors in it. Who closed our output does not want it, and there is
/// nobody else to tell.
fn written(document: &Value, if_error: u8) -> ExitCode {
    let code = if has_error(document) { if_error } else { COMPLETE };
    ExitCode::from(if writeln!(std::io::stdout(), "{document:#}").is_ok() { code } else { INCOMPLETE })
}
