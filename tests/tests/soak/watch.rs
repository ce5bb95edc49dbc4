//! Memory and open descriptors of a process, sampled every second; knows no request.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const PAUSE: Duration = Duration::from_secs(1);
/// Shares of the time that are compared: after the start, and before the end.
const EARLY: [f64; 2] = [0.2, 0.4];
const LATE: [f64; 2] = [0.8, 1.0];
const GROWTH_MAX: f64 = 1.1;
const MORE_DESCRIPTORS_MAX: f64 = 20.0;

/// One look at a process.
#[derive(Debug, Clone, Copy)]
struct Sample {
    resident_kib: f64,
    descriptors: f64,
}

/// All looks at a process, in their order.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    /// Looks at a process once a second until `over`.
    pub(crate) fn take(pid: u32, over: &AtomicBool) -> Result<Samples> {
        let mut samples = Vec::new();
        while !over.load(Ordering::Relaxed) {
            samples.push(Sample::of(pid)?);
            std::thread::sleep(PAUSE);
        }
        Ok(Samples(samples))
    }

    /// Fails if the process has more memory or descriptors at the end than after the start.
    pub(crate) fn are_flat(&self) -> Result<()> {
        let (early, late) = (self.mean(EARLY), self.mean(LATE));
        ensure!(late.resident_kib <= early.resident_kib * GROWTH_MAX, "memory grows: {self}");
        ensure!(late.descriptors <= early.descriptors + MORE_DESCRIPTORS_MAX, "descriptors grow: {self}");
        Ok(())
    }

    fn mean(&self, [from, to]: [f64; 2]) -> Sample {
        let place = |share: f64| (self.0.len() as f64 * share) as usize;
        let part = self.0.get(place(from)..place(to)).unwrap_or_default();
        let mean = |of: fn(&Sample) -> f64| part.iter().map(of).sum::<f64>() / part.len().max(1) as f64;
        Sample { resident_kib: mean(|sample| sample.resident_kib), descriptors: mean(|sample| sample.descriptors) }
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = |of: fn(&Sample) -> f64| self.0.iter().map(of).fold(0.0, f64::max);
        let (early, late) = (self.mean(EARLY), self.mean(LATE));
        let mib = |kib: f64| kib / 1024.0;
        write!(
            f,
            "memory {:.1} MiB early, {:.1} MiB late, {:.1} MiB at most; descriptors {:.0} early, {:.0} late, {:.0} at most",
            mib(early.resident_kib),
            mib(late.resident_kib),
            mib(most(|sample| sample.resident_kib)),
            early.descriptors,
            late.descriptors,
            most(|sample| sample.descriptors),
        )
    }
}

impl Sample {
    fn of(pid: u32) -> Result<Sample> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let resident_kib = line.trim().trim_end_matches(" kB").parse()?;
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64;
        Ok(Sample { resident_kib, descriptors })
    }
}
