//! Admission of requests on the HTTP side: the one gate machine of `sched`, shared, with a clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sched::desk::{Full, Gate, GateLimits, Hold};

use crate::clock::Clock;
use crate::openai::ApiError;
use crate::relief::Relief;

/// Bytes above which a request, when it ends, leaves memory behind that is worth giving back.
const BYTES_MUCH: usize = 128 << 10;

/// Lets requests in; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    clock: Clock,
    relief: Relief,
    gate: Arc<Mutex<Gate>>,
}

/// A request whose body is arriving.
#[derive(Debug)]
pub(crate) struct Arriving {
    held: Held,
}

/// Place of an admitted request; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    held: Held,
}

/// Bytes and place that a request holds; given back when dropped.
#[derive(Debug)]
struct Held {
    admission: Admission,
    hold: Hold,
}

impl Admission {
    /// `relief` is told when much memory has become free.
    pub(crate) fn new(limits: GateLimits, clock: Clock, relief: Relief) -> Admission {
        Admission { clock, relief, gate: Arc::new(Mutex::new(Gate::new(limits))) }
    }

    /// Lets a request begin to arrive. Returns 429, with the time after which a place should be free, if there is none.
    pub(crate) fn arrives(&self) -> Result<Arriving, ApiError> {
        let gate = self.gate();
        let hold = gate.arrive().map_err(|full| refused(&gate, full))?;
        drop(gate);
        Ok(Arriving { held: Held { admission: self.clone(), hold } })
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arriving {
    /// Counts more bytes of the body. Returns 429 when all bodies together are above their bound.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.held.ask(|gate, hold| gate.grow_body(hold, bytes))
    }

    /// Gives the request, whose body is complete, a place. Returns 429 when there is none any more.
    pub(crate) fn enter(mut self) -> Result<Permit, ApiError> {
        self.held.ask(Gate::enter)?;
        Ok(Permit { held: self.held })
    }
}

impl Permit {
    /// Counts more bytes of the answer, which is held until the client has taken it. Returns 400 when one answer may
    /// not be so large, and 429 when all answers together are above their bound.
    pub(crate) fn grow_answer(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.held.ask(|gate, hold| gate.grow_answer(hold, bytes))
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.held.hold.body_bytes()
    }

    /// Replaces the bytes of the body by `bytes`, the size of what was made from it and is kept until the request ends.
    pub(crate) fn body_became(&mut self, bytes: usize) {
        let Held { admission, hold } = &mut self.held;
        if hold.body_bytes() > BYTES_MUCH {
            admission.relief.due();
        }
        admission.gate().body_became(hold, bytes);
    }
}

impl Held {
    fn ask(&mut self, ask: impl FnOnce(&mut Gate, &mut Hold) -> Result<(), Full>) -> Result<(), ApiError> {
        let mut gate = self.admission.gate.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut gate, &mut self.hold).map_err(|full| refused(&gate, full))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.hold.body_bytes() + self.hold.answer_bytes() > BYTES_MUCH {
            self.admission.relief.due();
        }
        let now = self.admission.clock.now();
        self.admission.gate().leave(now, std::mem::take(&mut self.hold));
    }
}

fn refused(gate: &Gate, full: Full) -> ApiError {
    match full {
        Full::Answer { bytes_max } => ApiError::answer_too_large(bytes_max),
        Full::Places { .. } | Full::Bodies { .. } | Full::Answers { .. } => {
            ApiError::overloaded(format!("The service is overloaded: {full}."), gate.retry_after())
        }
    }
}

#[cfg(test)]
mod tests {
    use sched::Span;

    use super::*;
    use crate::openai::Advice;

    #[test]
    fn what_is_dropped_is_given_back_and_what_is_refused_says_when_to_come_again() {
        let limits =
            GateLimits { requests_max: 1, bytes_max: 1 << 20, answers_bytes_max: 1 << 20, answer_bytes_max: 100 };
        let admission = Admission::new(limits, Clock::start(), Relief::none());
        let mut permit = admission.arrives().unwrap().enter().unwrap();
        let refused = admission.arrives().unwrap_err();
        assert_eq!((refused.status, refused.advice), (429, Some(Advice::RetryAfter(Span::from_secs(1)))));
        assert!(refused.message.contains("1 requests are being served"), "{}", refused.message);
        let refused = permit.grow_answer(101).unwrap_err();
        assert_eq!((refused.status, refused.code), (400, Some("answer_too_large")));
        drop(permit);
        admission.arrives().unwrap().enter().unwrap();
    }
}
