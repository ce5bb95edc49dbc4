//! Where the latency model of a decision comes from: from outside, or from the worker's own steps; knows no decision.

use super::{CostError, Fitted};

/// Source of a latency model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// These coefficients.
    Given(Fitted),
    /// What the worker learns from its own steps: see [`super::OwnSteps`].
    Learned,
}

impl Latency {
    /// The model, where `learned` is what has been learnt so far; `None` until there is one.
    #[must_use]
    pub fn model(self, learned: Option<Fitted>) -> Option<Fitted> {
        match self {
            Latency::Given(given) => Some(given),
            Latency::Learned => learned,
        }
    }

    /// True if the worker has to learn the model.
    #[must_use]
    pub const fn is_learned(self) -> bool {
        matches!(self, Latency::Learned)
    }

    /// Checks coefficients that were given.
    ///
    /// # Errors
    /// The coefficient that no device can have.
    pub fn check(self) -> Result<(), CostError> {
        match self {
            Latency::Given(given) => given.checked().map(drop),
            Latency::Learned => Ok(()),
        }
    }
}

impl From<Fitted> for Latency {
    fn from(given: Fitted) -> Latency {
        Latency::Given(given)
    }
}
