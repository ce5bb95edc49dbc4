//! Gauges that live as long as their subject: a peer that is gone leaves no series behind. Knows no metric by name.
//!
//! The recorder keeps a series for the life of the process. Series of a peer, a worker or a file are exported from here
//! instead, as long as a gauge is held.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Name, labels and a unique number, as two subjects of one name may overlap for a moment.
type Key = (&'static str, Vec<(&'static str, String)>, u64);

static LIVING: Mutex<BTreeMap<Key, f64>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A gauge whose series is exported until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct LiveGauge {
    series: Arc<Series>,
}

#[derive(Debug)]
struct Series {
    key: Key,
}

impl LiveGauge {
    /// Makes a gauge with this name, labels and value.
    #[must_use]
    pub fn new(name: &'static str, labels: Vec<(&'static str, String)>, value: f64) -> LiveGauge {
        let gauge =
            LiveGauge { series: Arc::new(Series { key: (name, labels, NEXT.fetch_add(1, Ordering::Relaxed)) }) };
        gauge.set(value);
        gauge
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        living().insert(self.series.key.clone(), value);
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        living().remove(&self.key);
    }
}

fn living() -> MutexGuard<'static, BTreeMap<Key, f64>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One sample in Prometheus' text format, without its line end.
pub(super) fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> String {
    let mut line = name.to_owned();
    for (place, (label, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let before = if place == 0 { '{' } else { ',' };
        // Writing to a string cannot fail.
        let _ = write!(line, "{before}{label}=\"{text}\"");
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = write!(line, "{end} {value}");
    line
}

/// Samples of all living gauges by name; of two with equal labels the younger.
pub(super) fn samples() -> BTreeMap<&'static str, Vec<String>> {
    let mut latest = BTreeMap::new();
    for ((name, labels, _), value) in &*living() {
        latest.insert((*name, labels.clone()), *value);
    }
    let mut families: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for ((name, labels), value) in latest {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(label, text)| (*label, text.as_str())).collect();
        families.entry(name).or_default().push(sample(name, &labels, value));
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> Vec<String> {
        samples().remove(name).unwrap_or_default()
    }

    #[test]
    fn a_series_ends_with_its_subject_and_a_successor_keeps_its_own() {
        let labels = |worker: &str| vec![("role", "decode".to_owned()), ("peer", worker.to_owned())];
        let old = LiveGauge::new("live_test", labels("a\"b"), 1.0);
        let other = LiveGauge::new("live_test", labels("c"), 2.5);
        let new = LiveGauge::new("live_test", labels("a\"b"), 3.0);
        let both = [r#"live_test{role="decode",peer="a\"b"} 3"#, r#"live_test{role="decode",peer="c"} 2.5"#];
        assert_eq!(shown("live_test"), both);
        drop(old);
        assert_eq!(shown("live_test"), both);
        other.set(7.0);
        let clone = other.clone();
        drop((new, other));
        assert_eq!(shown("live_test"), [r#"live_test{role="decode",peer="c"} 7"#]);
        drop(clone);
        assert!(shown("live_test").is_empty());
    }
}
