//! Waits for a start as long as it makes progress, however long it takes in all. Knows no model.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, interval};

const LOOK_EVERY: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Counter that changes with any progress.
    pub(crate) ticks: u64,
    /// Current work, for people.
    pub(crate) doing: String,
}

/// Error of a start that makes no progress.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the start makes no progress for {} ms ({section}.start_stall_ms): {doing}", still_for.as_millis())]
pub struct Stalled {
    /// Section of the configuration that has the limit.
    pub section: &'static str,
    /// Time without progress.
    pub still_for: Duration,
    /// Last work that was seen.
    pub doing: String,
}

/// Limit on the time without progress, and where it is configured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StallMax {
    pub(crate) section: &'static str,
    pub(crate) limit: Duration,
}

#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    /// Returns the progress.
    pub(crate) look: &'a (dyn Fn() -> Sight + Sync),
    /// Receives the progress now and then, while there is any.
    pub(crate) told: &'a (dyn Fn(&str) + Sync),
    pub(crate) stop: &'a (dyn Fn() + Sync),
    pub(crate) stall: StallMax,
}

/// Waits for `loading` as long as it makes progress.
///
/// # Errors
/// There was no progress for as long as `watch.stall` allows.
pub(crate) async fn loaded<T>(loading: impl Future<Output = T>, watch: Watch<'_>) -> Result<T, Stalled> {
    let Watch { look, told, stall, stop: _ } = watch;
    let mut loading = pin!(loading);
    let mut looks = interval(LOOK_EVERY.min(stall.limit));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut since) = (look(), Instant::now());
    let (mut said, mut said_at) = (last.ticks, Instant::now());
    loop {
        tokio::select! {
            biased;
            loaded = &mut loading => return Ok(loaded),
            _ = looks.tick() => {}
        }
        let seen = look();
        if seen.ticks != last.ticks {
            since = Instant::now();
        }
        last = seen;
        if last.ticks != said && said_at.elapsed() >= TELL_EVERY {
            told(&last.doing);
            (said, said_at) = (last.ticks, Instant::now());
        }
        if since.elapsed() >= stall.limit {
            return Err(Stalled { section: stall.section, still_for: stall.limit, doing: last.doing });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const STALL: StallMax = StallMax { section: "test", limit: Duration::from_millis(700) };

    #[tokio::test]
    async fn a_slow_start_is_waited_for_while_it_gets_further() {
        let (ticks, told) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        let loading = async {
            for _ in 0..25 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                ticks.fetch_add(1, Ordering::Relaxed);
            }
            "ready"
        };
        let seen = || ticks.load(Ordering::Relaxed);
        let look = || Sight { ticks: seen(), doing: format!("{} of 25", seen()) };
        let tell = |doing: &str| told.lock().unwrap().push(doing.to_owned());
        let loaded = loaded(loading, Watch { look: &look, told: &tell, stop: &|| {}, stall: STALL }).await;
        assert_eq!(loaded, Ok("ready"), "it takes longer than it may stand still");
        let told = told.into_inner().unwrap();
        assert!(!told.is_empty() && told.len() < 10 && told[0].ends_with(" of 25"), "{told:?}");
    }

    #[tokio::test]
    async fn a_start_that_stands_still_fails_with_what_it_did_last() {
        let loading = std::future::pending::<()>();
        let look = || Sight { ticks: 7, doing: "packing weights, 1 of 3 MB".to_owned() };
        let watch = Watch { look: &look, told: &|_| {}, stop: &|| {}, stall: STALL };
        let stalled = loaded(loading, watch).await.unwrap_err().to_string();
        let expected = "the start makes no progress for 700 ms (test.start_stall_ms): packing weights, 1 of 3 MB";
        assert_eq!(stalled, expected);
    }
}
