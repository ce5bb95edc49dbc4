//! What a model's authors recommend for sampling, and the ranges that they and clients keep to; knows no request.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// 0 is greedy.
pub(crate) const TEMPERATURE: RangeInclusive<f32> = 0.0..=2.0;
/// Without 0, which would keep no token.
pub(crate) const TOP_P: RangeInclusive<f32> = 0.0..=1.0;
/// -1 and 0 are off.
pub(crate) const TOP_K: RangeInclusive<i64> = -1..=u32::MAX as i64;
/// 0 is off.
pub(crate) const MIN_P: RangeInclusive<f32> = 0.0..=1.0;
/// Logits are divided by it; what is nearer to 0 would only make them overflow.
pub(crate) const REPETITION_PENALTY: RangeInclusive<f32> = 0.01..=100.0;

/// What the model's authors recommend (`generation_config.json`), all within the ranges of requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Temperature.
    pub temperature: Option<f32>,
    /// Nucleus mass.
    pub top_p: Option<f32>,
    /// Most likely tokens to keep.
    pub top_k: Option<u32>,
    /// Smallest fraction of the highest probability to keep.
    pub min_p: Option<f32>,
    /// Penalty on tokens that have been seen.
    pub repetition_penalty: Option<f32>,
}

/// Whether 0 is within a range that begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zero {
    Allowed,
    Refused,
}

impl SamplingDefaults {
    /// Takes them from the keys of a `generation_config.json`. `do_sample: false` recommends greedy decoding whatever
    /// the temperature beside it.
    ///
    /// # Errors
    /// The key and its value, when a request could not say so either.
    pub(super) fn of(keys: &Map<String, Value>) -> Result<SamplingDefaults, String> {
        let temperature = number(keys, "temperature", &TEMPERATURE, Zero::Allowed)?;
        Ok(SamplingDefaults {
            temperature: if samples(keys)? == Some(false) { Some(0.0) } else { temperature },
            top_p: number(keys, "top_p", &TOP_P, Zero::Refused)?,
            top_k: top_k(keys)?,
            min_p: number(keys, "min_p", &MIN_P, Zero::Allowed)?,
            repetition_penalty: number(keys, "repetition_penalty", &REPETITION_PENALTY, Zero::Allowed)?,
        })
    }
}

/// What the file says; files write null for what they leave open.
fn said<'a>(keys: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    keys.get(key).filter(|value| !value.is_null())
}

fn number(
    keys: &Map<String, Value>,
    key: &str,
    range: &RangeInclusive<f32>,
    zero: Zero,
) -> Result<Option<f32>, String> {
    let Some(value) = said(keys, key) else { return Ok(None) };
    let within = |number: &f32| range.contains(number) && (zero == Zero::Allowed || *number != 0.0);
    let number = value.as_f64().map(|number| number as f32).filter(within);
    let start = match zero {
        Zero::Allowed => "from",
        Zero::Refused => "above",
    };
    let (low, high) = (range.start(), range.end());
    number.map(Some).ok_or_else(|| format!("{key} must be a number {start} {low} to {high}, but is {value}"))
}

fn top_k(keys: &Map<String, Value>) -> Result<Option<u32>, String> {
    let Some(value) = said(keys, "top_k") else { return Ok(None) };
    let k = value.as_i64().filter(|k| TOP_K.contains(k));
    let (low, high) = (TOP_K.start(), TOP_K.end());
    let k = k.ok_or_else(|| format!("top_k must be an integer from {low} to {high}, but is {value}"))?;
    Ok(Some(u32::try_from(k).unwrap_or(0)))
}

fn samples(keys: &Map<String, Value>) -> Result<Option<bool>, String> {
    let Some(value) = said(keys, "do_sample") else { return Ok(None) };
    value.as_bool().map(Some).ok_or_else(|| format!("do_sample must be true or false, but is {value}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(keys: &Value) -> Result<SamplingDefaults, String> {
        SamplingDefaults::of(keys.as_object().unwrap())
    }

    #[test]
    fn what_is_in_range_is_taken() {
        let all = json!({"temperature": 2, "top_p": 0.5, "top_k": 40, "min_p": null, "repetition_penalty": 1.1});
        let expected = SamplingDefaults {
            temperature: Some(2.0),
            top_p: Some(0.5),
            top_k: Some(40),
            min_p: None,
            repetition_penalty: Some(1.1),
        };
        assert_eq!(of(&all), Ok(expected));
        assert_eq!(of(&json!({})), Ok(SamplingDefaults::default()));
        assert_eq!(of(&json!({"top_k": -1})).unwrap().top_k, Some(0));
    }

    #[test]
    fn a_model_that_does_not_sample_is_greedy() {
        assert_eq!(of(&json!({"do_sample": false, "temperature": 0.7})).unwrap().temperature, Some(0.0));
        assert_eq!(of(&json!({"do_sample": true, "temperature": 0.7})).unwrap().temperature, Some(0.7));
        assert_eq!(of(&json!({"do_sample": true})).unwrap().temperature, None);
    }

    #[test]
    fn what_no_request_may_say_no_file_may_either() {
        let said = |keys: Value| of(&keys).unwrap_err();
        assert_eq!(said(json!({"temperature": -0.5})), "temperature must be a number from 0 to 2, but is -0.5");
        assert_eq!(said(json!({"top_p": 0})), "top_p must be a number above 0 to 1, but is 0");
        assert_eq!(said(json!({"top_k": -2})), "top_k must be an integer from -1 to 4294967295, but is -2");
        assert_eq!(said(json!({"min_p": "x"})), "min_p must be a number from 0 to 1, but is \"x\"");
        let zero = said(json!({"repetition_penalty": 0.0}));
        assert_eq!(zero, "repetition_penalty must be a number from 0.01 to 100, but is 0.0");
        assert_eq!(said(json!({"do_sample": 1})), "do_sample must be true or false, but is 1");
    }
}
