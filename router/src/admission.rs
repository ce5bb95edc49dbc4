//! The first gate as the tasks of the HTTP side use it: the machine of `sched`, one for all, with a clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sched::desk::{Full, Gate, GateLimits, Hold};

use crate::clock::Clock;
use crate::openai::ApiError;
use crate::relief::Relief;

/// A request that held more has left memory behind that is worth giving back.
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

/// A place inside; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    held: Held,
}

/// What a request holds; given back when dropped.
#[derive(Debug)]
struct Held {
    admission: Admission,
    hold: Hold,
}

impl Admission {
    /// `relief` hears when much memory has become free.
    pub(crate) fn new(limits: GateLimits, clock: Clock, relief: Relief) -> Admission {
        Admission { clock, relief, gate: Arc::new(Mutex::new(Gate::new(limits))) }
    }

    /// A request begins to arrive; one that would find no place needs not arrive at all.
    ///
    /// # Errors
    /// 429, with the time after which a place should be free.
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
    /// So many more bytes of the body are there.
    ///
    /// # Errors
    /// 429 when all bodies together are above their bound.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.held.ask(|gate, hold| gate.grow_body(hold, bytes))
    }

    /// The body is complete: a place for the request.
    ///
    /// # Errors
    /// 429 when there is none any more.
    pub(crate) fn enter(mut self) -> Result<Permit, ApiError> {
        self.held.ask(Gate::enter)?;
        Ok(Permit { held: self.held })
    }
}

impl Permit {
    /// The answer, which is held until the client has taken it, has so many more bytes.
    ///
    /// # Errors
    /// 400 when it is above what one answer may have, 429 when all answers together are above their bound.
    pub(crate) fn grow_answer(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.held.ask(|gate, hold| gate.grow_answer(hold, bytes))
    }

    /// Bytes of the body.
    pub(crate) fn body_bytes(&self) -> usize {
        self.held.hold.body_bytes()
    }

    /// The body is not needed any more; what was made of it, which the request keeps to its end, has so many bytes.
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
