//! Sampling parameters that a model's authors recommend, and the ranges for them and for clients; knows no request.

use std::ops::RangeInclusive;

use model_files::{Fields, ModelFileError};

/// 0 is greedy.
pub(crate) const TEMPERATURE: RangeInclusive<f32> = 0.0..=2.0;
/// Without 0, which would keep no token.
pub(crate) const TOP_P: RangeInclusive<f32> = 0.0..=1.0;
/// -1 and 0 are off.
pub(crate) const TOP_K: RangeInclusive<i64> = -1..=u32::MAX as i64;
/// 0 is off.
pub(crate) const MIN_P: RangeInclusive<f32> = 0.0..=1.0;
/// Divides logits; values nearer to 0 would only make them overflow.
pub(crate) const REPETITION_PENALTY: RangeInclusive<f32> = 0.01..=100.0;

/// Recommendations of the model's authors (`generation_config.json`), all within the ranges of requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Temperature.
    pub temperature: Option<f32>,
    /// Nucleus probability mass.
    pub top_p: Option<f32>,
    /// Number of most likely tokens to keep.
    pub top_k: Option<u32>,
    /// Smallest fraction of the highest probability to keep.
    pub min_p: Option<f32>,
    /// Penalty on tokens that have occurred.
    pub repetition_penalty: Option<f32>,
    /// Longest answer.
    pub max_tokens: Option<Length>,
    /// Shortest answer.
    pub min_tokens: Option<Length>,
}

/// A recommended length, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Of the answer.
    Answer(u32),
    /// Of prompt and answer together.
    All(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zero {
    Allowed,
    Refused,
}

impl SamplingDefaults {
    /// Reads the keys of a `generation_config.json`; fails with the key and value that no request could have either.
    /// `do_sample: false` recommends greedy decoding whatever the temperature beside it.
    pub(super) fn of(keys: &Fields) -> Result<SamplingDefaults, ModelFileError> {
        let temperature = number(keys, "temperature", &TEMPERATURE, Zero::Allowed)?;
        Ok(SamplingDefaults {
            temperature: if keys.flag_opt("do_sample")? == Some(false) { Some(0.0) } else { temperature },
            top_p: number(keys, "top_p", &TOP_P, Zero::Refused)?,
            top_k: top_k(keys)?,
            min_p: number(keys, "min_p", &MIN_P, Zero::Allowed)?,
            repetition_penalty: number(keys, "repetition_penalty", &REPETITION_PENALTY, Zero::Allowed)?,
            max_tokens: Length::of(keys.count_opt("max_new_tokens")?, longest(keys)?),
            min_tokens: Length::of(keys.whole_opt("min_new_tokens")?, keys.whole_opt("min_length")?),
        })
    }
}

impl Length {
    fn of(of_answer: Option<u32>, of_all: Option<u32>) -> Option<Length> {
        of_answer.map(Length::Answer).or(of_all.map(Length::All))
    }

    /// Returns the answer length for a prompt of `prompt_tokens`; `None` if the prompt alone is as long.
    #[must_use]
    pub fn of_answer(self, prompt_tokens: usize) -> Option<u32> {
        match self {
            Length::Answer(tokens) => Some(tokens),
            Length::All(tokens) => {
                let prompt = u32::try_from(prompt_tokens).ok()?;
                tokens.checked_sub(prompt).filter(|left| *left > 0)
            }
        }
    }
}

/// Reads `max_length`. 20 is the built-in default of transformers, once written into files, and no recommendation.
fn longest(keys: &Fields) -> Result<Option<u32>, ModelFileError> {
    const UNSAID: u32 = 20;
    Ok(keys.count_opt("max_length")?.filter(|tokens| *tokens != UNSAID))
}

fn number(keys: &Fields, key: &str, range: &RangeInclusive<f32>, zero: Zero) -> Result<Option<f32>, ModelFileError> {
    let Some(value) = keys.get(key) else { return Ok(None) };
    let within = |number: &f32| range.contains(number) && (zero == Zero::Allowed || *number != 0.0);
    let number = value.as_f64().map(|number| number as f32).filter(within);
    let start = match zero {
        Zero::Allowed => "from",
        Zero::Refused => "above",
    };
    let expected = format!("a number {start} {} to {}", range.start(), range.end());
    number.map(Some).ok_or_else(|| keys.wrong(key, &expected, value))
}

fn top_k(keys: &Fields) -> Result<Option<u32>, ModelFileError> {
    const KEY: &str = "top_k";
    let Some(value) = keys.get(KEY) else { return Ok(None) };
    let k = value.as_i64().filter(|k| TOP_K.contains(k));
    let expected = format!("a whole number from {} to {}", TOP_K.start(), TOP_K.end());
    let k = k.ok_or_else(|| keys.wrong(KEY, &expected, value))?;
    Ok(Some(u32::try_from(k).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    fn of(keys: &Value) -> Result<SamplingDefaults, String> {
        let keys = Fields::parse(Path::new("generation_config.json"), &keys.to_string()).unwrap();
        SamplingDefaults::of(&keys).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_in_range_is_taken() {
        let all = json!({"temperature": 2, "top_p": 0.5, "top_k": 40, "min_p": null, "repetition_penalty": 1.1,
            "max_new_tokens": 512, "max_length": 4096, "min_length": 3});
        let expected = SamplingDefaults {
            temperature: Some(2.0),
            top_p: Some(0.5),
            top_k: Some(40),
            min_p: None,
            repetition_penalty: Some(1.1),
            max_tokens: Some(Length::Answer(512)),
            min_tokens: Some(Length::All(3)),
        };
        assert_eq!(of(&all), Ok(expected));
        assert_eq!(of(&json!({})), Ok(SamplingDefaults::default()));
        assert_eq!(of(&json!({"top_k": -1})).unwrap().top_k, Some(0));
    }

    #[test]
    fn a_length_is_of_the_answer_or_of_all() {
        let most = |keys: Value| of(&keys).unwrap().max_tokens;
        assert_eq!(most(json!({"max_length": 4096})), Some(Length::All(4096)));
        assert_eq!(most(json!({"max_length": 20})), None);
        assert_eq!(Length::All(100).of_answer(90), Some(10));
        assert_eq!(Length::All(100).of_answer(100), None);
        assert_eq!(Length::All(100).of_answer(usize::MAX), None);
        assert_eq!(Length::Answer(7).of_answer(90), Some(7));
    }

    #[test]
    fn a_model_that_does_not_sample_is_greedy() {
        assert_eq!(of(&json!({"do_sample": false, "temperature": 0.7})).unwrap().temperature, Some(0.0));
        assert_eq!(of(&json!({"do_sample": true, "temperature": 0.7})).unwrap().temperature, Some(0.7));
        assert_eq!(of(&json!({"do_sample": true})).unwrap().temperature, None);
    }

    #[test]
    fn what_no_request_may_say_no_file_may_either() {
        for (keys, expected) in [
            (json!({"temperature": -0.5}), "temperature must be a number from 0 to 2, found -0.5"),
            (json!({"top_p": 0}), "top_p must be a number above 0 to 1, found 0"),
            (json!({"top_k": -2}), "top_k must be a whole number from -1 to 4294967295, found -2"),
            (json!({"top_k": 1.5}), "top_k must be a whole number from -1 to 4294967295, found 1.5"),
            (json!({"min_p": "x"}), "min_p must be a number from 0 to 1, found \"x\""),
            (json!({"repetition_penalty": 0.0}), "repetition_penalty must be a number from 0.01 to 100, found 0.0"),
            (json!({"do_sample": 1}), "do_sample must be true or false, found 1"),
            (json!({"max_new_tokens": 0}), "max_new_tokens must be at least 1, found 0"),
            (json!({"max_new_tokens": "512"}), "max_new_tokens must be a whole number below 2^32, found \"512\""),
            (json!({"max_length": 1e300}), "max_length must be a whole number below 2^32, found 1e+300"),
            (json!({"min_new_tokens": -1}), "min_new_tokens must be a whole number below 2^32, found -1"),
        ] {
            assert_eq!(of(&keys), Err(format!("generation_config.json: {expected}")));
        }
    }
}
