//! The system's figures for this process, under the names that Prometheus' own client libraries use.
//!
//! The crate `metrics-process` exports processor time as a gauge of whole seconds; here it is a counter of fractions.

use std::fs;

/// Figure of a process, with its name, kind and meaning.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
    pub(super) value: f64,
}

/// Returns all figures that the system gives.
pub(super) fn facts() -> Vec<Fact> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    // The list contains its own descriptor.
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64);
    let ticks = ticks_per_second(&fs::read("/proc/self/auxv").unwrap_or_default());
    let fact = |name, kind, help, value: Option<f64>| value.map(|value| Fact { name, kind, help, value });
    let all = [
        fact(
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            cpu_seconds(&stat, ticks),
        ),
        fact("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", kib(&status, "VmRSS:")),
        fact("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", kib(&status, "VmSize:")),
        fact("process_open_fds", "gauge", "Number of open file descriptors.", open),
        fact("process_max_fds", "gauge", "Maximum number of open file descriptors.", max_open_files(&limits)),
        fact("process_threads", "gauge", "Number of OS threads in the process.", field(&status, "Threads:")),
        fact(
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            start_seconds(&stat, ticks),
        ),
    ];
    all.into_iter().flatten().collect()
}

/// Returns a field of /proc/PID/stat from the third on: the second is a name in brackets that may hold anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str, ticks: f64) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / ticks)
}

/// The system counts start times from its own start.
fn start_seconds(stat: &str, ticks: f64) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    Some(field(&system, "btime ")? + stat_field(stat, 22)? / ticks)
}

/// Ticks per second in /proc, from the auxiliary vector of the kernel; 100 on all common machines.
fn ticks_per_second(auxv: &[u8]) -> f64 {
    const AT_CLKTCK: u64 = 17;
    let pairs = auxv.as_chunks::<8>().0.as_chunks::<2>().0;
    let found = pairs.iter().find(|[key, _]| u64::from_ne_bytes(*key) == AT_CLKTCK);
    found.map_or(100.0, |[_, value]| u64::from_ne_bytes(*value) as f64)
}

fn field(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kib(status: &str, key: &str) -> Option<f64> {
    field(status, key).map(|kib| kib * 1024.0)
}

fn max_open_files(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_system_says_what_prometheus_asks_for() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let facts = facts();
        let value = |name: &str| facts.iter().find(|fact| fact.name == name).map(|fact| fact.value).unwrap();
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let started = value("process_start_time_seconds");
        assert!(started <= now + 1.0 && started > now - 3_600.0, "{started} is not before {now}");
    }

    #[test]
    fn a_name_in_brackets_confuses_nobody() {
        let stat = "7 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 9 0 4200 1 2";
        assert_eq!(cpu_seconds(stat, 100.0), Some(4.0));
        assert_eq!(stat_field(stat, 22), Some(4200.0));
        assert_eq!(cpu_seconds("", 100.0), None);
    }
}
