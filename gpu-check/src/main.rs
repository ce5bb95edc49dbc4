//! gpu-check: measures this machine's GPU and writes one JSON document; starts on machines without a GPU too.
//!
//! Every measurement runs in a process of its own, so one that fails, faults the device or hangs costs only its own
//! field. The first process never touches the driver: it starts the others, waits for each up to its limit, and
//! composes the document. docs/gpu.md explains the fields.

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
/// The document has errors in it; a measuring process writes the reason of its failure to standard error.
pub(crate) const INCOMPLETE: u8 = 1;
/// A measuring process found no GPU; the reason is on standard error.
pub(crate) const ABSENT: u8 = 3;
pub(crate) const PARTIAL: u8 = 4;
/// The command line is wrong (EX_USAGE).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(message) => {
            // clap also reports a request for help this way.
            let code = if message.use_stderr() { USAGE } else { COMPLETE };
            return ExitCode::from(if message.print().is_ok() { code } else { INCOMPLETE });
        }
    };
    if options.measure.is_none() && !options.peer {
        return written(&report::document(&options), INCOMPLETE);
    }
    // A measuring process writes its result to standard output, or the reason of its failure to standard error.
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

/// Writes the document and returns `if_error` if it has errors. A closed output is ignored: nobody reads the document.
fn written(document: &Value, if_error: u8) -> ExitCode {
    let code = if has_error(document) { if_error } else { COMPLETE };
    ExitCode::from(if writeln!(std::io::stdout(), "{document:#}").is_ok() { code } else { INCOMPLETE })
}
