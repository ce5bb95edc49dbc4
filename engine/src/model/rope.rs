//! Rotary position embedding: its parameters from config.json and its inverse frequencies.
//!
//! Source: Su et al., "RoFormer" (2021); the Llama 3.1 rescaling as published with its weights.

use super::json::Fields;
use crate::EngineError;

/// How positions rotate queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are changed for longer contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies are divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Long wavelengths are divided, short ones kept, those between blended.
    Llama3 {
        /// Divisor of long wavelengths.
        factor: f64,
        /// `original_context / low` is the shortest wavelength that is fully divided.
        low: f64,
        /// `original_context / high` is the longest wavelength that is kept.
        high: f64,
        /// Context length before the extension, in tokens.
        original_context: f64,
    },
}

impl RopeSpec {
    /// Reads `rope_parameters`, or the older `rope_theta` and `rope_scaling`.
    pub(crate) fn of(config: &Fields, theta_default: f64, head_dim: u32) -> Result<RopeSpec, EngineError> {
        if config.number_opt("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(config.problem("partial_rotary_factor", "other than 1 is not supported"));
        }
        let parameters = match config.object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => config.object("rope_scaling")?,
        };
        let nested_theta = match &parameters {
            Some(parameters) => parameters.number_opt("rope_theta")?,
            None => None,
        };
        let theta = nested_theta.or(config.number_opt("rope_theta")?).unwrap_or(theta_default);
        if theta <= 1.0 {
            return Err(config.problem("rope_theta", format!("must be above 1, found {theta}")));
        }
        let scaling = parameters.as_ref().map_or(Ok(RopeScaling::None), RopeScaling::of)?;
        let rope = RopeSpec { theta, scaling };
        match rope.inverse_frequencies(head_dim).into_iter().find(|frequency| !(0.0..=1.0e6).contains(frequency)) {
            Some(frequency) => Err(config.problem("rope_parameters", format!("imply a frequency of {frequency}"))),
            None => Ok(rope),
        }
    }

    /// Inverse frequencies for a head of `head_dim`, `head_dim / 2` of them, in radians per position.
    #[must_use]
    pub fn inverse_frequencies(&self, head_dim: u32) -> Vec<f32> {
        let pair = |index: u32| {
            let exponent = f64::from(2 * index) / f64::from(head_dim);
            self.scaling.apply(self.theta.powf(exponent).recip()) as f32
        };
        (0..head_dim / 2).map(pair).collect()
    }
}

impl RopeScaling {
    fn of(parameters: &Fields) -> Result<RopeScaling, EngineError> {
        let key = if parameters.get("rope_type").is_some() { "rope_type" } else { "type" };
        match parameters.text_opt(key)? {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: parameters.positive("factor")? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: parameters.positive("factor")?,
                low: parameters.positive("low_freq_factor")?,
                high: parameters.positive("high_freq_factor")?,
                original_context: parameters.positive("original_max_position_embeddings")?,
            }),
            Some(other) => {
                let problem = format!("{other:?} is not supported; supported are default, linear and llama3");
                Err(parameters.problem(key, problem))
            }
        }
    }

    fn apply(self, frequency: f64) -> f64 {
        match self {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                let wavelength = std::f64::consts::TAU / frequency;
                if wavelength < original_context / high {
                    frequency
                } else if wavelength > original_context / low {
                    frequency / factor
                } else {
                    let kept = (original_context / wavelength - low) / (high - low);
                    (1.0 - kept) * frequency / factor + kept * frequency
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_short_and_divides_long_wavelengths() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 64.0 };
        let scaled = RopeSpec { theta: 500_000.0, scaling }.inverse_frequencies(32);
        let plain = RopeSpec { theta: 500_000.0, scaling: RopeScaling::None }.inverse_frequencies(32);
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[15], plain[15] / 8.0);
        assert!(scaled.iter().zip(&plain).any(|(s, p)| *s < *p && *s > *p / 8.0));
    }
}
