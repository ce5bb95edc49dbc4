//! The first gate: bounds how many requests are inside, and how many bytes their bodies and answers hold.
//!
//! What a client announces counts for nothing; bytes count when they have arrived, a place when the whole request has.
//! So neither idle connections nor large promises keep anybody out. Many connections ask at once, and before there is a
//! request, so the gate is a machine of its own beside the desk.

use thiserror::Error;

use crate::{Span, Time};

/// Weight of the newest gap in the running mean of gaps between two ends of requests.
const NEWEST_WEIGHT: f64 = 0.1;
const RETRY_AFTER_MIN: Span = Span::from_ms(100);
const RETRY_AFTER_MAX: Span = Span::from_secs(30);
/// Bytes that every request may hold uncounted, so that large ones cannot keep small ones out. Places bound their sum.
const BYTES_FREE: usize = 16 << 10;

/// Limits on what is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Requests inside.
    pub requests_max: usize,
    /// Bytes of their bodies and of the prompts made from them.
    pub bytes_max: usize,
    /// Bytes of answers that are held, over all requests.
    pub answers_bytes_max: usize,
    /// Bytes of one held answer.
    pub answer_bytes_max: usize,
}

/// Machine that lets requests in.
#[derive(Debug, Clone)]
pub struct Gate {
    limits: GateLimits,
    requests: usize,
    body_bytes: usize,
    answer_bytes: usize,
    last_end: Option<Time>,
    end_gap_us: Option<f64>,
}

/// Place and bytes that one request holds. They have to be given back with [`Gate::leave`].
#[must_use]
#[derive(Debug, Default)]
pub struct Hold {
    place: Place,
    body_bytes: usize,
    answer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Outside,
    Inside,
}

/// Reason why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// All places are taken.
    #[error("{requests} requests are being served")]
    Places {
        /// Number of requests inside.
        requests: usize,
    },
    /// Bodies hold as many bytes as they may.
    #[error("requests of {bytes} bytes are being served")]
    Bodies {
        /// Bytes that other requests hold.
        bytes: usize,
    },
    /// Answers hold as many bytes as they may.
    #[error("answers of {bytes} bytes are being put together")]
    Answers {
        /// Bytes that other requests hold.
        bytes: usize,
    },
    /// This answer alone is larger than one may be, so waiting does not help.
    #[error("an answer may have {bytes_max} bytes")]
    Answer {
        /// Most bytes of one answer.
        bytes_max: usize,
    },
}

impl Gate {
    /// Creates a gate with nobody inside.
    #[must_use]
    pub fn new(limits: GateLimits) -> Gate {
        Gate { limits, requests: 0, body_bytes: 0, answer_bytes: 0, last_end: None, end_gap_us: None }
    }

    /// Begins the arrival of a request. Fails if all places are taken, so that it need not arrive at all.
    pub fn arrive(&self) -> Result<Hold, Full> {
        self.place_left()?;
        Ok(Hold::default())
    }

    /// Counts so many more bytes of the body, which have arrived. Fails if all bodies together exceed their bound.
    pub fn grow_body(&mut self, hold: &mut Hold, bytes: usize) -> Result<(), Full> {
        let others = others(self.body_bytes, hold.body_bytes);
        let after = hold.body_bytes + bytes;
        if !fits(after, others, self.limits.bytes_max) {
            return Err(Full::Bodies { bytes: others });
        }
        self.body_bytes = others + over_free(after);
        hold.body_bytes = after;
        Ok(())
    }

    /// Gives a place to a request whose body is complete. Fails if all places are taken by now.
    pub fn enter(&mut self, hold: &mut Hold) -> Result<(), Full> {
        self.place_left()?;
        self.requests += 1;
        hold.place = Place::Inside;
        Ok(())
    }

    /// Counts `bytes` in place of the body: the size of what was made of it, which the request keeps to its end.
    pub fn body_became(&mut self, hold: &mut Hold, bytes: usize) {
        self.body_bytes = others(self.body_bytes, hold.body_bytes) + over_free(bytes);
        hold.body_bytes = bytes;
    }

    /// Counts so many more bytes of the answer, held until the client has taken it. Fails if a bound is exceeded.
    pub fn grow_answer(&mut self, hold: &mut Hold, bytes: usize) -> Result<(), Full> {
        let GateLimits { answer_bytes_max, answers_bytes_max, .. } = self.limits;
        let after = hold.answer_bytes + bytes;
        if after > answer_bytes_max {
            return Err(Full::Answer { bytes_max: answer_bytes_max });
        }
        let others = others(self.answer_bytes, hold.answer_bytes);
        if !fits(after, others, answers_bytes_max) {
            return Err(Full::Answers { bytes: others });
        }
        self.answer_bytes = others + over_free(after);
        hold.answer_bytes = after;
        Ok(())
    }

    /// Gives back what a request holds.
    #[expect(clippy::needless_pass_by_value, reason = "what is given back is gone")]
    pub fn leave(&mut self, now: Time, hold: Hold) {
        self.body_bytes = others(self.body_bytes, hold.body_bytes);
        self.answer_bytes = others(self.answer_bytes, hold.answer_bytes);
        match hold.place {
            Place::Inside => {
                self.requests -= 1;
                self.ended(now);
            }
            Place::Outside => {}
        }
    }

    /// Time until a place should be free: the mean gap between two ends.
    #[must_use]
    pub fn retry_after(&self) -> Span {
        let gap = self.end_gap_us.map_or(Span::from_secs(1), |us| Span(us as u64));
        gap.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }

    fn place_left(&self) -> Result<(), Full> {
        match self.requests < self.limits.requests_max {
            true => Ok(()),
            false => Err(Full::Places { requests: self.requests }),
        }
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

impl Hold {
    /// Bytes of the body, or of what was made of it.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Bytes of the answer.
    #[must_use]
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }
}

/// A request that is above the bound alone gets in when it is the only large one, else it never would.
fn fits(own: usize, others: usize, max: usize) -> bool {
    own <= BYTES_FREE || others == 0 || others + own <= max
}

fn others(sum: usize, own: usize) -> usize {
    sum - over_free(own)
}

/// Part of a request's bytes that counts: small requests are free.
fn over_free(bytes: usize) -> usize {
    if bytes <= BYTES_FREE { 0 } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn gate() -> Gate {
        Gate::new(GateLimits {
            requests_max: 2,
            bytes_max: 100 * KIB,
            answers_bytes_max: 100 * KIB,
            answer_bytes_max: 90 * KIB,
        })
    }

    fn entered(gate: &mut Gate) -> Hold {
        let mut hold = gate.arrive().unwrap();
        gate.enter(&mut hold).unwrap();
        hold
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let mut gate = gate();
        let mut late = gate.arrive().unwrap();
        let (first, second) = (entered(&mut gate), entered(&mut gate));
        assert_eq!(gate.arrive().unwrap_err(), Full::Places { requests: 2 });
        assert_eq!(gate.retry_after(), Span::from_secs(1));
        assert!(gate.enter(&mut late).is_err(), "the places went to others while it arrived");
        gate.leave(Time(0), late);
        gate.leave(Time(0), first);
        gate.leave(Time(0), second);
        let again = entered(&mut gate);
        gate.leave(Time(0), again);
        assert_eq!((gate.requests, gate.body_bytes, gate.answer_bytes), (0, 0, 0));
    }

    #[test]
    fn bytes_count_when_they_have_arrived_and_small_requests_are_never_kept_out() {
        let mut gate = gate();
        let mut large = gate.arrive().unwrap();
        gate.grow_body(&mut large, 90 * KIB).unwrap();
        let mut other = gate.arrive().unwrap();
        gate.grow_body(&mut other, BYTES_FREE).unwrap();
        assert_eq!(gate.grow_body(&mut other, 1), Err(Full::Bodies { bytes: 90 * KIB }));
        gate.enter(&mut large).unwrap();
        gate.body_became(&mut large, 90 * KIB);
        assert!(gate.grow_body(&mut other, KIB).is_err(), "its prompt is as large");
        gate.body_became(&mut large, BYTES_FREE);
        gate.grow_body(&mut other, KIB).unwrap();
        gate.leave(Time(0), large);
        gate.leave(Time(0), other);
        let mut giant = gate.arrive().unwrap();
        gate.grow_body(&mut giant, 1_000 * KIB).unwrap();
        gate.leave(Time(0), giant);
        assert_eq!(gate.body_bytes, 0);
    }

    #[test]
    fn answers_are_bounded_one_by_one_and_together() {
        let mut gate = gate();
        let (mut first, mut second) = (entered(&mut gate), entered(&mut gate));
        gate.grow_answer(&mut first, 90 * KIB).unwrap();
        assert_eq!(gate.grow_answer(&mut first, 1), Err(Full::Answer { bytes_max: 90 * KIB }));
        gate.grow_answer(&mut second, BYTES_FREE).unwrap();
        assert_eq!(gate.grow_answer(&mut second, 1), Err(Full::Answers { bytes: 90 * KIB }));
        gate.leave(Time(0), first);
        gate.grow_answer(&mut second, 1).unwrap();
        gate.leave(Time(0), second);
        assert_eq!(gate.answer_bytes, 0);
    }

    #[test]
    fn retry_after_is_the_mean_gap_between_ends() {
        let mut gate = gate();
        for end in 0..=50 {
            let hold = entered(&mut gate);
            gate.leave(Time(end * 2_000_000), hold);
        }
        assert_eq!(gate.retry_after(), Span::from_secs(2));
        gate.end_gap_us = Some(1.0);
        assert_eq!(gate.retry_after(), RETRY_AFTER_MIN);
    }
}
