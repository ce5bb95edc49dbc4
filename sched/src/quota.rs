//! What one user may ask for: requests and tokens per minute, and requests at a time; knows no user and no key.
//!
//! Rates are buckets that fill evenly and hold one minute's worth. A request takes one from the bucket of requests when
//! it begins. Tokens are taken when they are known, so the bucket of tokens may sink below empty, and then no request
//! begins until it is above empty again: over time the rate is kept exactly, and a request that has begun is finished.

use thiserror::Error;

use crate::{Span, Time};

const MINUTE_US: u64 = 60_000_000;
/// Time after which a request that found too many others running should come again.
const CONCURRENCY_WAIT: Span = Span::from_secs(1);

/// Limits of one user; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaLimits {
    /// Requests per minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute, those of prompts and of answers together.
    pub tokens_per_minute: Option<u64>,
    /// Requests at a time.
    pub concurrency_max: Option<u64>,
}

/// Machine that counts what one user has asked for.
#[derive(Debug, Clone)]
pub struct Quota {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    concurrency_max: Option<u64>,
    running: u64,
}

/// Reason why a request may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Exceeded {
    /// Too many requests in the last minute.
    #[error("{per_minute} requests per minute")]
    Requests {
        /// The limit.
        per_minute: u64,
        /// Time until the next request may begin.
        wait: Span,
    },
    /// Too many tokens in the last minutes.
    #[error("{per_minute} tokens per minute")]
    Tokens {
        /// The limit.
        per_minute: u64,
        /// Time until the next request may begin, if no running one takes more tokens.
        wait: Span,
    },
    /// Too many requests are running.
    #[error("{max} requests at a time")]
    Concurrency {
        /// The limit.
        max: u64,
    },
}

/// Level of one rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// The limit per minute.
    pub limit: u64,
    /// What is left now.
    pub remaining: u64,
    /// Time until everything is left again.
    pub full_in: Span,
}

impl Quota {
    /// Makes the quota of a user who has asked for nothing yet.
    #[must_use]
    pub fn new(limits: QuotaLimits, now: Time) -> Quota {
        Quota {
            requests: limits.requests_per_minute.map(|rate| Bucket::full(rate, now)),
            tokens: limits.tokens_per_minute.map(|rate| Bucket::full(rate, now)),
            concurrency_max: limits.concurrency_max,
            running: 0,
        }
    }

    /// Changes the limits; what has been used in the last minute still counts.
    pub fn limit(&mut self, limits: QuotaLimits, now: Time) {
        self.requests = limits.requests_per_minute.map(|rate| Bucket::after(self.requests, rate, now));
        self.tokens = limits.tokens_per_minute.map(|rate| Bucket::after(self.tokens, rate, now));
        self.concurrency_max = limits.concurrency_max;
    }

    /// Begins a request, which has to end with [`Quota::end`].
    ///
    /// # Errors
    /// A limit is reached; nothing has been counted.
    pub fn begin(&mut self, now: Time) -> Result<(), Exceeded> {
        if let Some(max) = self.concurrency_max
            && self.running >= max
        {
            return Err(Exceeded::Concurrency { max });
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.wait_for(1, now).map_err(|wait| Exceeded::Tokens { per_minute: tokens.per_minute, wait })?;
        }
        if let Some(requests) = &mut self.requests {
            requests.wait_for(1, now).map_err(|wait| Exceeded::Requests { per_minute: requests.per_minute, wait })?;
            requests.take(1);
        }
        self.running += 1;
        Ok(())
    }

    /// Counts tokens of a request that has begun.
    pub fn spend(&mut self, now: Time, tokens: u64) {
        if let Some(bucket) = &mut self.tokens {
            bucket.fill(now);
            bucket.take(tokens);
        }
    }

    /// Ends a request that has begun.
    pub fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Returns the levels of requests and of tokens, where they are limited.
    pub fn levels(&mut self, now: Time) -> (Option<Level>, Option<Level>) {
        let level = |bucket: &mut Option<Bucket>| bucket.as_mut().map(|bucket| bucket.level(now));
        (level(&mut self.requests), level(&mut self.tokens))
    }
}

impl Exceeded {
    /// Returns the time after which the request may come again.
    #[must_use]
    pub const fn wait(self) -> Span {
        match self {
            Exceeded::Requests { wait, .. } | Exceeded::Tokens { wait, .. } => wait,
            Exceeded::Concurrency { .. } => CONCURRENCY_WAIT,
        }
    }

    /// Returns the name for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Exceeded::Requests { .. } => "requests",
            Exceeded::Tokens { .. } => "tokens",
            Exceeded::Concurrency { .. } => "concurrency",
        }
    }
}

/// Bucket that fills by `per_minute` in a minute and holds as much. Its contents are counted in parts, of which one
/// request or token has a minute's microseconds, so that every microsecond adds a whole number and nothing is rounded.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_minute: u64,
    parts: i128,
    filled: Time,
}

impl Bucket {
    fn full(per_minute: u64, now: Time) -> Bucket {
        Bucket { per_minute, parts: parts_of(per_minute), filled: now }
    }

    /// Makes the bucket of a new rate, from which as much is missing as from the old one.
    fn after(old: Option<Bucket>, per_minute: u64, now: Time) -> Bucket {
        let mut bucket = Bucket::full(per_minute, now);
        if let Some(mut old) = old {
            old.fill(now);
            bucket.parts = bucket.parts.saturating_sub(parts_of(old.per_minute).saturating_sub(old.parts));
        }
        bucket
    }

    fn fill(&mut self, now: Time) {
        let added = i128::from(now.since(self.filled).us()).saturating_mul(i128::from(self.per_minute));
        self.parts = self.parts.saturating_add(added).min(parts_of(self.per_minute));
        self.filled = self.filled.max(now);
    }

    fn take(&mut self, amount: u64) {
        self.parts = self.parts.saturating_sub(parts_of(amount));
    }

    /// Fails with the time until the bucket holds `amount`.
    fn wait_for(&mut self, amount: u64, now: Time) -> Result<(), Span> {
        self.fill(now);
        match self.us_until(parts_of(amount)) {
            0 => Ok(()),
            us => Err(Span(us)),
        }
    }

    fn level(&mut self, now: Time) -> Level {
        self.fill(now);
        let left = self.parts.max(0) / i128::from(MINUTE_US);
        Level {
            limit: self.per_minute,
            remaining: u64::try_from(left).unwrap_or(u64::MAX),
            full_in: Span(self.us_until(parts_of(self.per_minute))),
        }
    }

    /// Microseconds until the bucket holds `parts`, rounded up.
    fn us_until(&self, parts: i128) -> u64 {
        let lacking = u128::try_from(parts.saturating_sub(self.parts)).unwrap_or(0);
        u64::try_from(lacking.div_ceil(u128::from(self.per_minute.max(1)))).unwrap_or(u64::MAX)
    }
}

fn parts_of(amount: u64) -> i128 {
    i128::from(amount) * i128::from(MINUTE_US)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Time = Time(1_000);

    fn quota(requests: Option<u64>, tokens: Option<u64>, concurrency: Option<u64>) -> Quota {
        let limits =
            QuotaLimits { requests_per_minute: requests, tokens_per_minute: tokens, concurrency_max: concurrency };
        Quota::new(limits, START)
    }

    #[test]
    fn without_limits_everything_may_begin() {
        let mut quota = quota(None, None, None);
        for _ in 0..1_000 {
            quota.begin(START).unwrap();
            quota.spend(START, u64::MAX);
        }
        assert_eq!(quota.levels(START), (None, None));
    }

    #[test]
    fn a_minute_of_requests_may_come_at_once_and_then_they_come_evenly() {
        let mut quota = quota(Some(3), None, None);
        for _ in 0..3 {
            quota.begin(START).unwrap();
        }
        let wait = Span::from_secs(20);
        let refused = quota.begin(START).unwrap_err();
        assert_eq!(refused, Exceeded::Requests { per_minute: 3, wait });
        assert_eq!((refused.wait(), refused.to_string()), (wait, "3 requests per minute".to_owned()));
        assert!(quota.begin(START + Span(wait.us() - 1)).is_err(), "not before");
        quota.begin(START + wait).unwrap();
        let (requests, _) = quota.levels(START + wait);
        assert_eq!(requests, Some(Level { limit: 3, remaining: 0, full_in: Span::from_secs(60) }));
    }

    #[test]
    fn tokens_are_paid_afterwards_and_a_debt_is_waited_for() {
        let mut quota = quota(None, Some(60), None);
        quota.begin(START).unwrap();
        quota.spend(START, 180);
        let refused = quota.begin(START).unwrap_err();
        assert_eq!(refused.wait(), Span::from_secs(121), "two minutes of debt, and the first token");
        assert_eq!(quota.levels(START).1, Some(Level { limit: 60, remaining: 0, full_in: Span::from_secs(180) }));
        quota.begin(START + refused.wait()).unwrap();
    }

    #[test]
    fn what_has_ended_makes_room_and_a_refused_request_costs_nothing() {
        let mut quota = quota(Some(10), None, Some(2));
        quota.begin(START).unwrap();
        quota.begin(START).unwrap();
        for _ in 0..100 {
            assert_eq!(quota.begin(START), Err(Exceeded::Concurrency { max: 2 }));
        }
        quota.end();
        quota.begin(START).unwrap();
        assert_eq!(quota.levels(START).0.unwrap().remaining, 7);
    }

    #[test]
    fn new_limits_do_not_forgive_what_was_used() {
        let mut quota = quota(Some(10), Some(100), None);
        quota.begin(START).unwrap();
        quota.spend(START, 90);
        let limits = QuotaLimits { requests_per_minute: Some(1), tokens_per_minute: Some(1_000), ..Default::default() };
        quota.limit(limits, START);
        let (requests, tokens) = quota.levels(START);
        assert_eq!((requests.unwrap().remaining, tokens.unwrap().remaining), (0, 910));
        assert!(quota.begin(START).is_err());
        quota.limit(QuotaLimits::default(), START);
        quota.begin(START).unwrap();
    }

    #[test]
    fn the_largest_numbers_and_a_clock_that_stands_do_no_harm() {
        let mut quota = quota(Some(u64::MAX), Some(u64::MAX), None);
        quota.begin(Time(0)).unwrap();
        quota.spend(Time(u64::MAX), u64::MAX);
        quota.spend(Time(u64::MAX), u64::MAX);
        assert!(quota.begin(Time(u64::MAX)).unwrap_err().wait() <= Span::from_secs(61));
    }

    proptest! {
        /// Whatever comes when, no more begins than the bucket and its filling allow, and a promised wait is enough.
        #[test]
        fn the_rate_is_kept_and_every_promise_too(rate in 1_u64..500, gaps in prop::collection::vec(0_u64..3_000_000, 1..300)) {
            let mut quota = quota(Some(rate), None, None);
            let (mut now, mut begun) = (START, 0_u64);
            for gap in gaps {
                now = now + Span(gap);
                match quota.begin(now) {
                    Ok(()) => begun += 1,
                    Err(refused) => {
                        prop_assert!(quota.clone().begin(now + refused.wait()).is_ok());
                        prop_assert!(quota.clone().begin(now + Span(refused.wait().us() - 1)).is_err());
                    }
                }
            }
            let allowed = rate as f64 * (1.0 + now.since(START).us() as f64 / 60e6);
            prop_assert!(begun as f64 <= allowed + 1e-6, "{begun} of {allowed}");
        }
    }
}
