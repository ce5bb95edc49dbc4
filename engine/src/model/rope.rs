//! Rotary position embedding: its parameters from config.json and its inverse frequencies.
//!
//! Source: Su et al., "RoFormer" (2021); the Llama 3.1 rescaling as published with its weights.

use model_files::{Fields, ModelFileError};
use serde_json::Value;

/// Keys of schemes that are not built. A file that has such a key beside a scheme that ignores it contradicts itself.
const FOREIGN_KEYS: [&str; 9] = [
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
    "short_mscale",
];

const BUILT: [&str; 3] = ["default", "linear", "llama3"];

/// Rotation of queries and keys by their positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeSpec {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Change of the frequencies for longer contexts.
    pub scaling: RopeScaling,
}

/// Change of the frequencies for longer contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// No change.
    None,
    /// Divides all frequencies by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Divides long wavelengths, keeps short ones, and blends those between.
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
    /// Reads `rope_parameters`, or the older `rope_scaling` unless that is empty; `rope_theta` may stand beside them.
    pub(crate) fn of(config: &Fields, head_dim: u32) -> Result<RopeSpec, ModelFileError> {
        let (key, parameters) = parameters(config)?;
        let theta = match &parameters {
            Some(parameters) => parameters.number_opt("rope_theta")?,
            None => None,
        };
        let missing = || config.problem("rope_theta", "is missing");
        let theta =
            theta.map_or_else(|| config.number_opt("rope_theta"), |theta| Ok(Some(theta)))?.ok_or_else(missing)?;
        if theta <= 1.0 {
            return Err(config.problem("rope_theta", format!("must be above 1, found {theta}")));
        }
        let scaling = parameters.as_ref().map_or(Ok(RopeScaling::None), |given| RopeScaling::of(given, config))?;
        let rope = RopeSpec { theta, scaling };
        match rope.inverse_frequencies(head_dim).into_iter().find(|frequency| !(0.0..=1.0e6).contains(frequency)) {
            Some(frequency) => Err(config.problem(key, format!("imply a frequency of {frequency}"))),
            None => Ok(rope),
        }
    }

    /// The `head_dim / 2` inverse frequencies for a head of `head_dim`, in radians per position.
    #[must_use]
    pub fn inverse_frequencies(&self, head_dim: u32) -> Vec<f32> {
        let pair = |index: u32| {
            let exponent = f64::from(2 * index) / f64::from(head_dim);
            self.scaling.apply(self.theta.powf(exponent).recip()) as f32
        };
        (0..head_dim / 2).map(pair).collect()
    }
}

/// Parameters, and the key that they stand under. A non-empty `rope_scaling` replaces all of `rope_parameters`.
fn parameters(config: &Fields) -> Result<(&'static str, Option<Fields>), ModelFileError> {
    const OLD: &str = "rope_scaling";
    const NEW: &str = "rope_parameters";
    match config.object(OLD)?.filter(|old| old.entries().next().is_some()) {
        Some(old) => Ok((OLD, Some(old))),
        None => Ok((NEW, config.object(NEW)?)),
    }
}

impl RopeScaling {
    /// Scaling that `parameters` ask for; `config` is all of config.json.
    fn of(parameters: &Fields, config: &Fields) -> Result<RopeScaling, ModelFileError> {
        refuse_foreign(parameters)?;
        let key = if parameters.has("rope_type") { "rope_type" } else { "type" };
        match parameters.text_opt(key)? {
            None if parameters.has(key) => Err(parameters.problem(key, "must not be null")),
            None | Some("default") => {
                match parameters.number_opt("factor")? {
                    Some(factor) if factor != 1.0 => Err(parameters
                        .problem("factor", format!("is {factor}, but rope_type is default, which has no factor"))),
                    Some(_) | None => Ok(RopeScaling::None),
                }
            }
            Some("linear") => Ok(RopeScaling::Linear { factor: parameters.positive("factor")? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: parameters.positive("factor")?,
                low: parameters.positive("low_freq_factor")?,
                high: parameters.positive("high_freq_factor")?,
                original_context: original_context(parameters, config)?,
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

/// Context length before the extension: from beside the parameters, from the parameters, or that of the model.
fn original_context(parameters: &Fields, config: &Fields) -> Result<f64, ModelFileError> {
    const KEY: &str = "original_max_position_embeddings";
    match (config.is_given(KEY), parameters.has(KEY)) {
        (true, _) => config.positive(KEY),
        (false, true) => parameters.positive(KEY),
        (false, false) => config.positive("max_position_embeddings"),
    }
}

/// Refuses parameters per type of layer, for a part of a head, or of a scheme that is not built.
fn refuse_foreign(parameters: &Fields) -> Result<(), ModelFileError> {
    if let Some((layers, _)) = parameters.entries().find(|(_, value)| value.is_object()) {
        return Err(parameters.problem(layers, "has parameters of its own, which is not supported per type of layer"));
    }
    if parameters.number_opt("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return Err(parameters.problem("partial_rotary_factor", "other than 1 is not supported"));
    }
    let by_type = parameters.entries().find(|(key, value)| FOREIGN_KEYS.contains(key) && **value != Value::Null);
    let is_named = |key: &str| parameters.get(key).and_then(Value::as_str).is_some_and(|name| !BUILT.contains(&name));
    match by_type {
        // A scheme that reads these keys is refused by its own name.
        Some(_) if is_named("rope_type") || is_named("type") => Ok(()),
        Some((key, value)) => {
            Err(parameters.problem(key, format!("is {value}, which belongs to no scheme that is built")))
        }
        None => Ok(()),
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
