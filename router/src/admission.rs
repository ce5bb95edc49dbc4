//! The first gate: how many requests and bytes are inside at a time; decides before anything is parsed.

use std::sync::{Arc, Mutex, PoisonError};

use sched::{Span, Time};

use crate::clock::Clock;
use crate::openai::ApiError;

/// Weight of the newest gap in the running mean of gaps between two ends.
const NEWEST_WEIGHT: f64 = 0.1;
const RETRY_AFTER_MIN: Span = Span::from_ms(100);
const RETRY_AFTER_MAX: Span = Span::from_secs(30);

/// Lets requests in; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    requests_max: usize,
    bytes_max: usize,
    clock: Clock,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    requests: usize,
    bytes: usize,
    last_end: Option<Time>,
    /// Running mean of the gap between two ends.
    end_gap_us: Option<f64>,
}

/// A place inside; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Admission,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(requests_max: usize, bytes_max: usize, clock: Clock) -> Admission {
        Admission { requests_max, bytes_max, clock, inside: Arc::default() }
    }

    /// A place for a request of `bytes`.
    ///
    /// # Errors
    /// 429, with the time after which a place should be free: the mean gap between two ends.
    pub(crate) fn enter(&self, bytes: usize) -> Result<Permit, ApiError> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.requests >= self.requests_max {
            let message = format!("The service is overloaded: {} requests are being served.", inside.requests);
            return Err(ApiError::overloaded(message, inside.retry_after()));
        }
        // A request that alone is above the bound gets in when nobody else is inside, else it would never.
        if inside.requests > 0 && inside.bytes.saturating_add(bytes) > self.bytes_max {
            let message = format!("The service is overloaded: requests of {} bytes are being served.", inside.bytes);
            return Err(ApiError::overloaded(message, inside.retry_after()));
        }
        inside.requests += 1;
        inside.bytes += bytes;
        Ok(Permit { admission: self.clone(), bytes })
    }
}

impl Inside {
    fn retry_after(&self) -> Span {
        let gap = self.end_gap_us.map_or(Span::from_secs(1), |us| Span(us as u64));
        gap.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }

    fn ended(&mut self, now: Time) {
        if let Some(last) = self.last_end {
            let gap = now.since(last).us() as f64;
            let mean = self.end_gap_us.unwrap_or(gap);
            self.end_gap_us = Some(mean + NEWEST_WEIGHT * (gap - mean));
        }
        self.last_end = Some(now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.admission.clock.now();
        let mut inside = self.admission.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.requests -= 1;
        inside.bytes -= self.bytes;
        inside.ended(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::Advice;

    #[test]
    fn requests_and_bytes_are_bounded_and_given_back() {
        let admission = Admission::new(2, 100, Clock::start());
        let large = admission.enter(90).unwrap();
        let refused = admission.enter(11).unwrap_err();
        assert_eq!((refused.status, refused.advice), (429, Some(Advice::RetryAfter(Span::from_secs(1)))));
        let small = admission.enter(10).unwrap();
        assert!(admission.enter(0).is_err(), "two requests are inside");
        drop((large, small));
        let giant = admission.enter(1_000).unwrap();
        assert!(admission.enter(1).is_err());
        drop(giant);
        assert!(admission.enter(1).is_ok());
    }

    #[test]
    fn retry_after_is_the_mean_gap_between_ends() {
        let mut inside = Inside::default();
        inside.ended(Time(0));
        for end in 1..=50 {
            inside.ended(Time(end * 2_000_000));
        }
        assert_eq!(inside.retry_after(), Span::from_secs(2));
        inside.end_gap_us = Some(1.0);
        assert_eq!(inside.retry_after(), RETRY_AFTER_MIN);
    }
}
