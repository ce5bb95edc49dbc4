//! The first gate: how many requests are inside at a time, and how many bytes of bodies and of answers they hold.
//!
//! What a client announces costs it nothing and counts for nothing; bytes count when they have arrived, a place when the
//! whole request has. So neither idle connections nor large promises keep anybody out.

use std::sync::{Arc, Mutex, PoisonError};

use sched::{Span, Time};

use crate::clock::Clock;
use crate::openai::ApiError;
use crate::relief::Relief;

/// Weight of the newest gap in the running mean of gaps between two ends.
const NEWEST_WEIGHT: f64 = 0.1;
const RETRY_AFTER_MIN: Span = Span::from_ms(100);
const RETRY_AFTER_MAX: Span = Span::from_secs(30);
/// Bytes that every request may hold uncounted, so that large ones cannot keep small ones out. Places bound their sum.
const BYTES_FREE: usize = 16 << 10;

/// A request that held more has left memory behind that is worth giving back.
const BYTES_MUCH: usize = 128 << 10;

/// How much may be inside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdmissionLimits {
    /// Requests.
    pub(crate) requests_max: usize,
    /// Bytes of their bodies and of the prompts made of them.
    pub(crate) bytes_max: usize,
    /// Bytes of answers that are held, of all requests.
    pub(crate) answers_bytes_max: usize,
    /// Bytes of one such answer.
    pub(crate) answer_bytes_max: usize,
}

/// Lets requests in; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    limits: AdmissionLimits,
    clock: Clock,
    relief: Relief,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    requests: usize,
    body_bytes: usize,
    answer_bytes: usize,
    last_end: Option<Time>,
    /// Running mean of the gap between two ends.
    end_gap_us: Option<f64>,
}

/// A request whose body is arriving.
#[derive(Debug)]
pub(crate) struct Arriving {
    held: Held,
}

/// A place inside; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    held: Held,
}

/// What a request holds; given back when dropped.
#[derive(Debug)]
struct Held {
    admission: Admission,
    place: Place,
    body_bytes: usize,
    answer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Inside,
}

impl Admission {
    /// `relief` hears when much memory has become free.
    pub(crate) fn new(limits: AdmissionLimits, clock: Clock, relief: Relief) -> Admission {
        Admission { limits, clock, relief, inside: Arc::default() }
    }

    /// A request begins to arrive; one that would find no place needs not arrive at all.
    ///
    /// # Errors
    /// 429, with the time after which a place should be free: the mean gap between two ends.
    pub(crate) fn arrives(&self) -> Result<Arriving, ApiError> {
        self.locked().place_left(&self.limits)?;
        let held = Held { admission: self.clone(), place: Place::Outside, body_bytes: 0, answer_bytes: 0 };
        Ok(Arriving { held })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arriving {
    /// So many more bytes of the body are there.
    ///
    /// # Errors
    /// 429 when all bodies together are above their bound.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let held = &mut self.held;
        let mut inside = held.admission.locked();
        let others = counted(inside.body_bytes, held.body_bytes);
        let after = held.body_bytes + bytes;
        // A body that alone is above the bound gets in when it is the only large one, else it would never.
        let fits = after <= BYTES_FREE || others == 0 || others + after <= held.admission.limits.bytes_max;
        if !fits {
            let message = format!("The service is overloaded: requests of {others} bytes are being served.");
            return Err(ApiError::overloaded(message, inside.retry_after()));
        }
        inside.body_bytes = others + over_free(after);
        held.body_bytes = after;
        Ok(())
    }

    /// The body is complete: a place for the request.
    ///
    /// # Errors
    /// 429 when there is none any more.
    pub(crate) fn enter(mut self) -> Result<Permit, ApiError> {
        let mut inside = self.held.admission.locked();
        inside.place_left(&self.held.admission.limits)?;
        inside.requests += 1;
        drop(inside);
        self.held.place = Place::Inside;
        Ok(Permit { held: self.held })
    }
}

impl Permit {
    /// The answer, which is held until the client has taken it, has so many more bytes.
    ///
    /// # Errors
    /// 400 when it is above what one answer may have, 429 when all answers together are above their bound.
    pub(crate) fn grow_answer(&mut self, bytes: usize) -> Result<(), ApiError> {
        let held = &mut self.held;
        let limits = held.admission.limits;
        let after = held.answer_bytes + bytes;
        if after > limits.answer_bytes_max {
            return Err(ApiError::answer_too_large(limits.answer_bytes_max));
        }
        let mut inside = held.admission.locked();
        let others = counted(inside.answer_bytes, held.answer_bytes);
        let fits = after <= BYTES_FREE || others == 0 || others + after <= limits.answers_bytes_max;
        if !fits {
            let message = format!("The service is overloaded: answers of {others} bytes are being put together.");
            return Err(ApiError::overloaded(message, inside.retry_after()));
        }
        inside.answer_bytes = others + over_free(after);
        held.answer_bytes = after;
        Ok(())
    }

    /// Bytes of the body.
    pub(crate) fn body_bytes(&self) -> usize {
        self.held.body_bytes
    }

    /// The body is not needed any more; what was made of it, which the request keeps to its end, has so many bytes.
    pub(crate) fn body_became(&mut self, bytes: usize) {
        let held = &mut self.held;
        if held.body_bytes > BYTES_MUCH {
            held.admission.relief.due();
        }
        let mut inside = held.admission.locked();
        inside.body_bytes = counted(inside.body_bytes, held.body_bytes) + over_free(bytes);
        held.body_bytes = bytes;
    }
}

/// What of a sum is not this request's.
fn counted(sum: usize, own: usize) -> usize {
    sum - over_free(own)
}

/// What counts of a request's bytes: small ones are free.
fn over_free(bytes: usize) -> usize {
    if bytes <= BYTES_FREE { 0 } else { bytes }
}

impl Inside {
    fn place_left(&self, limits: &AdmissionLimits) -> Result<(), ApiError> {
        if self.requests < limits.requests_max {
            return Ok(());
        }
        let message = format!("The service is overloaded: {} requests are being served.", self.requests);
        Err(ApiError::overloaded(message, self.retry_after()))
    }

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

impl Drop for Held {
    fn drop(&mut self) {
        if self.body_bytes + self.answer_bytes > BYTES_MUCH {
            self.admission.relief.due();
        }
        let now = self.admission.clock.now();
        let mut inside = self.admission.locked();
        inside.body_bytes = counted(inside.body_bytes, self.body_bytes);
        inside.answer_bytes = counted(inside.answer_bytes, self.answer_bytes);
        match self.place {
            Place::Inside => {
                inside.requests -= 1;
                inside.ended(now);
            }
            Place::Outside => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::Advice;

    const KIB: usize = 1 << 10;

    fn admission() -> Admission {
        let limits = AdmissionLimits {
            requests_max: 2,
            bytes_max: 100 * KIB,
            answers_bytes_max: 100 * KIB,
            answer_bytes_max: 90 * KIB,
        };
        Admission::new(limits, Clock::start(), Relief::none())
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let admission = admission();
        let late = admission.arrives().unwrap();
        let first = admission.arrives().unwrap().enter().unwrap();
        let second = admission.arrives().unwrap().enter().unwrap();
        let refused = admission.arrives().unwrap_err();
        assert_eq!((refused.status, refused.advice), (429, Some(Advice::RetryAfter(Span::from_secs(1)))));
        assert_eq!(late.enter().unwrap_err().status, 429, "the places went to others while it arrived");
        drop((first, second));
        admission.arrives().unwrap().enter().unwrap();
    }

    #[test]
    fn bytes_count_when_they_have_arrived_and_small_requests_are_never_kept_out() {
        let admission = admission();
        let mut large = admission.arrives().unwrap();
        large.grow(90 * KIB).unwrap();
        let mut other = admission.arrives().unwrap();
        other.grow(BYTES_FREE).unwrap();
        assert_eq!(other.grow(1).unwrap_err().status, 429);
        assert!(admission.arrives().unwrap().enter().is_ok(), "what has no bytes yet has a place");
        let mut permit = large.enter().unwrap();
        permit.body_became(90 * KIB);
        assert_eq!(other.grow(KIB).unwrap_err().status, 429, "its prompt is as large");
        permit.body_became(BYTES_FREE);
        other.grow(KIB).unwrap();
        drop((permit, other));
        let mut giant = admission.arrives().unwrap();
        giant.grow(1_000 * KIB).unwrap();
        drop(giant);
        assert_eq!(admission.locked().body_bytes, 0);
    }

    #[test]
    fn answers_are_bounded_one_by_one_and_together() {
        let admission = admission();
        let mut first = admission.arrives().unwrap().enter().unwrap();
        first.grow_answer(90 * KIB).unwrap();
        let refused = first.grow_answer(1).unwrap_err();
        assert_eq!((refused.status, refused.code), (400, Some("answer_too_large")));
        let mut second = admission.arrives().unwrap().enter().unwrap();
        second.grow_answer(BYTES_FREE).unwrap();
        assert_eq!(second.grow_answer(1).unwrap_err().status, 429);
        drop(first);
        second.grow_answer(1).unwrap();
        drop(second);
        assert_eq!(admission.locked().answer_bytes, 0);
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
