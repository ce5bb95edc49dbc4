//! The latency model of DistServe (Zhong et al., OSDI 2024, appendix A) with coefficients from a fit; knows no device.
//!
//! A prefill step takes a + b·Σlen + c·Σlen², a decode step a + b·Σcontext + c·batch. A step that mixes both streams
//! the weights once, so it pays the larger of the two constants and the sum of the rest.

use thiserror::Error;

use super::{CostModel, LaneUse, Phase, StepWork, Work};

/// Coefficients of one device and model, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitted {
    /// Steps with prompt tokens.
    pub prefill: PrefillFit,
    /// Steps without prompt tokens.
    pub decode: DecodeFit,
    /// Slow-down by a neighbour that has the whole device: speed is divided by 1 + this x the neighbour's share.
    pub contention: f64,
}

/// a + b·Σlen + c·Σlen².
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefillFit {
    /// a: once per step.
    pub step_us: f64,
    /// b: per prompt token.
    pub token_us: f64,
    /// c: per squared prompt length.
    pub token_squared_us: f64,
    /// Share of the device beyond which more of it helps no further, in (0, 1].
    pub saturation_share: f64,
}

/// a + b·Σcontext + c·batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeFit {
    /// a: once per step.
    pub step_us: f64,
    /// b: per token of context.
    pub context_token_us: f64,
    /// c: per sequence.
    pub sequence_us: f64,
    /// Share of the device beyond which more of it helps no further, in (0, 1].
    pub saturation_share: f64,
}

/// Coefficient that no device can have.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("cost model has {name} = {value}, which must {must}")]
pub struct CostError {
    /// The coefficient.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Rule that it breaks.
    pub must: &'static str,
}

impl Fitted {
    /// Returns these coefficients, if they describe a device on which every step takes time.
    pub fn checked(self) -> Result<Fitted, CostError> {
        for (name, value) in [
            ("prefill.token_us", self.prefill.token_us),
            ("prefill.token_squared_us", self.prefill.token_squared_us),
            ("decode.context_token_us", self.decode.context_token_us),
            ("decode.sequence_us", self.decode.sequence_us),
            ("contention", self.contention),
        ] {
            require(name, value, value.is_finite() && value >= 0.0, "be finite and not negative")?;
        }
        for (name, value) in [("prefill.step_us", self.prefill.step_us), ("decode.step_us", self.decode.step_us)] {
            require(name, value, value.is_finite() && value > 0.0, "be finite and positive")?;
        }
        for (name, value) in [
            ("prefill.saturation_share", self.prefill.saturation_share),
            ("decode.saturation_share", self.decode.saturation_share),
        ] {
            require(name, value, value > 0.0 && value <= 1.0, "lie in (0, 1]")?;
        }
        Ok(self)
    }

    /// Round numbers of the size of a small model on a few cores: the default of the Modelled backend.
    #[must_use]
    pub const fn example() -> Fitted {
        Fitted {
            prefill: PrefillFit { step_us: 2_000.0, token_us: 40.0, token_squared_us: 0.005, saturation_share: 1.0 },
            decode: DecodeFit { step_us: 4_000.0, context_token_us: 0.05, sequence_us: 100.0, saturation_share: 1.0 },
            contention: 0.0,
        }
    }
}

fn require(name: &'static str, value: f64, holds: bool, must: &'static str) -> Result<(), CostError> {
    if holds { Ok(()) } else { Err(CostError { name, value, must }) }
}

impl CostModel for Fitted {
    fn work(&self, step: &StepWork) -> Work {
        let prefill =
            self.prefill.token_us * step.prefill_tokens + self.prefill.token_squared_us * step.prefill_squares;
        let decode =
            self.decode.context_token_us * step.decode_context + self.decode.sequence_us * step.decode_sequences;
        let base = match (step.prefill_tokens > 0.0, step.decode_sequences > 0.0) {
            (true, true) => self.prefill.step_us.max(self.decode.step_us),
            (true, false) => self.prefill.step_us,
            (false, true) => self.decode.step_us,
            (false, false) => 0.0,
        };
        Work((base + prefill + decode) * (1.0 - step.layers_skipped))
    }

    fn speed(&self, own: LaneUse, others: &[LaneUse]) -> f64 {
        let saturation = match own.phase {
            Phase::Prefill => self.prefill.saturation_share,
            Phase::Decode => self.decode.saturation_share,
        };
        let neighbours: f64 = others.iter().map(|other| other.share).sum();
        (own.share / saturation).min(1.0) / (1.0 + self.contention * neighbours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_the_published_form() {
        let model = Fitted::example();
        let prefill = StepWork::default().with_chunk(0..100).with_chunk(0..10);
        assert_eq!(model.work(&prefill), Work(2_000.0 + 40.0 * 110.0 + 0.005 * 10_100.0));
        let decode = StepWork::default().with_decode(500).with_decode(300);
        assert_eq!(model.work(&decode), Work(4_000.0 + 0.05 * 800.0 + 100.0 * 2.0));
        let mixed = decode.with_chunk(0..100);
        assert_eq!(model.work(&mixed), Work(4_000.0 + 40.0 + 200.0 + 4_000.0 + 50.0));
        assert_eq!(model.work(&StepWork { layers_skipped: 0.5, ..decode }), Work(2_120.0));
        assert_eq!(model.work(&StepWork::default()), Work(0.0));
    }

    #[test]
    fn speed_follows_share_saturation_and_neighbours() {
        let mut model = Fitted { contention: 0.5, ..Fitted::example() };
        model.decode.saturation_share = 0.5;
        let lane = |share, phase| LaneUse { share, phase };
        assert_eq!(model.speed(lane(0.25, Phase::Prefill), &[]), 0.25);
        assert_eq!(model.speed(lane(0.25, Phase::Decode), &[]), 0.5);
        assert_eq!(model.speed(lane(0.75, Phase::Decode), &[]), 1.0);
        let beside = model.speed(lane(0.5, Phase::Decode), &[lane(0.5, Phase::Prefill)]);
        assert_eq!(beside, 1.0 / 1.25);
    }

    #[test]
    fn impossible_coefficients_are_named() {
        let mut negative = Fitted::example();
        negative.prefill.token_us = -1.0;
        assert_eq!(
            negative.checked().unwrap_err().to_string(),
            "cost model has prefill.token_us = -1, which must be finite and not negative"
        );
        let mut free = Fitted::example();
        free.decode.step_us = 0.0;
        assert_eq!(free.checked().unwrap_err().name, "decode.step_us");
        let mut saturated = Fitted::example();
        saturated.prefill.saturation_share = f64::NAN;
        assert_eq!(saturated.checked().unwrap_err().name, "prefill.saturation_share");
        assert_eq!(Fitted::example().checked(), Ok(Fitted::example()));
    }
}
