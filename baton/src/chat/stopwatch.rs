//! Speed of an answer as its reader saw it; knows arrivals and counts, no text.

use std::time::{Duration, Instant};

/// Shortest time per token that is believed; faster tokens were collected on their way.
const TPOT_MIN: Duration = Duration::from_micros(100);

pub(super) struct Stopwatch {
    asked: Instant,
    first: Option<Instant>,
    last: Instant,
}

impl Stopwatch {
    pub(super) fn start() -> Stopwatch {
        let asked = Instant::now();
        Stopwatch { asked, first: None, last: asked }
    }

    pub(super) fn mark(&mut self, arrived: Instant) {
        self.first.get_or_insert(arrived);
        self.last = arrived;
    }

    /// Summarises an answer of so many tokens, if that is known.
    pub(super) fn summary(&self, tokens: Option<u64>) -> String {
        let Some(first) = self.first else { return "no text".to_string() };
        let ttft_ms = (first - self.asked).as_secs_f64() * 1e3;
        let count = match tokens {
            Some(1) => "1 token".to_owned(),
            Some(tokens) => format!("{tokens} tokens"),
            None => "stopped".to_owned(),
        };
        let tpot =
            self.tpot(first, tokens).map_or("n/a".to_owned(), |tpot| format!("{:.1} ms", tpot.as_secs_f64() * 1e3));
        format!("TTFT {ttft_ms:.1} ms · TPOT {tpot} · {count}")
    }

    /// Mean gap between tokens; `None` without a gap, or if tokens did not arrive one by one.
    fn tpot(&self, first: Instant, tokens: Option<u64>) -> Option<Duration> {
        let gaps = tokens?.checked_sub(1).filter(|gaps| *gaps > 0)?;
        let tpot = (self.last - first).div_f64(gaps as f64);
        (tpot >= TPOT_MIN).then_some(tpot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(arrivals_ms: &[u64], tokens: Option<u64>) -> String {
        let mut watch = Stopwatch::start();
        let asked = watch.asked;
        arrivals_ms.iter().for_each(|ms| watch.mark(asked + Duration::from_millis(*ms)));
        watch.summary(tokens)
    }

    #[test]
    fn tpot_is_said_where_there_is_one() {
        assert_eq!(summary(&[100, 120, 140], Some(3)), "TTFT 100.0 ms · TPOT 20.0 ms · 3 tokens");
        assert_eq!(summary(&[100, 160], Some(4)), "TTFT 100.0 ms · TPOT 20.0 ms · 4 tokens");
        assert_eq!(summary(&[100], Some(1)), "TTFT 100.0 ms · TPOT n/a · 1 token");
        assert_eq!(summary(&[100, 100], Some(40)), "TTFT 100.0 ms · TPOT n/a · 40 tokens", "all at once");
        assert_eq!(summary(&[100, 101], Some(400)), "TTFT 100.0 ms · TPOT n/a · 400 tokens", "a burst");
        assert_eq!(summary(&[100, 150], None), "TTFT 100.0 ms · TPOT n/a · stopped");
        assert_eq!(summary(&[], Some(0)), "no text");
    }
}
