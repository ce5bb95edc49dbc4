//! Load of the processor by other processes and by the host, from `/proc/stat`; knows no benchmark.

use anyhow::{Context, Result, ensure};

/// Ticks since the system, or this process, started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticks {
    /// Ticks of all cores, including idle ones.
    total: u64,
    /// Ticks of computing.
    busy: u64,
    /// Ticks that we wanted, but that the host gave to others.
    stolen: u64,
    /// Ticks of this process and its ended children.
    own: u64,
}

/// Shares of the processor's time between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disturbance {
    /// Share of processes outside of the benchmark.
    pub(crate) others: f64,
    /// Share taken by the host.
    pub(crate) stolen: f64,
}

impl Ticks {
    pub(crate) fn now() -> Result<Ticks> {
        let system = read("/proc/stat")?;
        let line =
            system.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat has no cpu line")?;
        let ticks = numbers(line);
        ensure!(ticks.len() >= 8, "/proc/stat has {} columns, at least 8 are expected", ticks.len());
        // user, nice, system, idle, iowait, irq, softirq, steal; later fields are contained in user and nice.
        let busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6];
        let process = read("/proc/self/stat")?;
        // The name in parentheses may contain anything; then come state, ppid, ... and utime, stime, cutime, cstime.
        let (_, fields) = process.rsplit_once(')').context("/proc/self/stat has no name")?;
        let times: Vec<u64> = fields.split_whitespace().skip(11).take(4).flat_map(str::parse).collect();
        Ok(Ticks { total: ticks[..8].iter().sum(), busy, stolen: ticks[7], own: times.iter().sum() })
    }

    pub(crate) fn since(self, before: Ticks) -> Disturbance {
        let total = self.total.saturating_sub(before.total).max(1) as f64;
        let busy = self.busy.saturating_sub(before.busy);
        let own = self.own.saturating_sub(before.own);
        Disturbance {
            others: busy.saturating_sub(own) as f64 / total,
            stolen: self.stolen.saturating_sub(before.stolen) as f64 / total,
        }
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.to_owned())
}

fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().flat_map(str::parse).collect()
}
