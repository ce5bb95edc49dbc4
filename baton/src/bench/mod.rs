//! `baton bench`: arguments become a session of the crate `client`, and its report is printed and written.

mod args;
mod plan;
mod progress;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Result, bail, ensure};
use client::Error;
use client::report::{html, record_line, summary};
use client::run::{Record, Stopper};
use client::session::{Outcome, Recorded};

use crate::ending::Ending;
use crate::terminal::{print, remark};
pub use args::BenchArgs;
use progress::Bar;

/// Sends the workload and reports. Ctrl-C ends the run early, with a report of what was done.
pub async fn run(args: BenchArgs, ending: &Ending) -> Result<()> {
    let output = &args.output;
    for file in [&output.json, &output.html, &output.records] {
        plan::writable(file.as_deref())?;
    }
    let session = tokio::select! {
        session = plan::session(&args) => session?,
        _ = ending.asked() => bail!("ended before anything was sent"),
    };
    let names: Vec<&str> = session.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    remark(format_args!("sending {} requests to {}; Ctrl-C ends early", session.workload.rows.len(), names.join(", ")));
    let (stopper, stop) = Stopper::new();
    let bar = Bar::start(session.progress.clone());
    let watch = async {
        ending.asked().await;
        stopper.stop();
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = session.run(&stop) => outcome?,
        () = watch => bail!("the wish to end was lost"),
        cut = ending.insisted() => return Err(cut.into()),
    };
    drop(bar);
    print(&summary(&outcome.report))?;
    write_files(&args, &outcome)?;
    judge(&args, &outcome)
}

fn write_files(args: &BenchArgs, outcome: &Outcome) -> Result<()> {
    let output = &args.output;
    if let Some(file) = &output.json {
        let text = serde_json::to_string_pretty(&outcome.report)?;
        written(file, |out| writeln!(out, "{text}"))?;
    }
    if let Some(file) = &output.html {
        let records: Vec<&[Record]> = outcome.records.iter().map(Recorded::counted).collect();
        written(file, |out| out.write_all(html(&outcome.report, &records).as_bytes()))?;
    }
    if let Some(file) = &output.records {
        written(file, |out| {
            for recorded in &outcome.records {
                for record in &recorded.records {
                    writeln!(out, "{}", record_line(&recorded.name, record, recorded.warm_up))?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn written(file: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let written = File::create(file).and_then(|opened| {
        let mut out = BufWriter::new(opened);
        write(&mut out).and_then(|()| out.flush())
    });
    written.map_err(|source| Error::Io { file: file.to_owned(), source }.into())
}

/// Fails if nothing ended well, or if fewer requests met their targets than demanded.
fn judge(args: &BenchArgs, outcome: &Outcome) -> Result<()> {
    for target in &outcome.report.targets {
        let (name, measured) = (&target.name, &target.measured);
        ensure!(measured.requests.ok > 0 || outcome.report.interrupted, "{name}: no request ended well");
        let share_min = args.pace.attainment_min.unwrap_or(0.0);
        let share = measured.attainment;
        ensure!(share >= share_min, "{name}: {:.1} % met their targets, not {:.1} %", share * 100.0, share_min * 100.0);
    }
    Ok(())
}
