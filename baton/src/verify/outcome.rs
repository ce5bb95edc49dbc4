//! Contents of an answer, down to the bit, and differences between answers; knows no deployment.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Choices of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    choices: Vec<Choice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Choice {
    finish_reason: String,
    tokens: Vec<u64>,
    /// Bits of the chosen tokens' log-probabilities.
    logprobs: Vec<u32>,
    /// Bits of the alternatives' log-probabilities, per token, in the order of the answer.
    top: Vec<Vec<(String, u32)>>,
    /// Bits of the log-probabilities of the prompt's tokens and their alternatives, where the request asks for them.
    prompt: Vec<Vec<(String, u32)>>,
}

impl Answer {
    /// Reads a `/v1/completions` answer with `logprobs` and `return_token_ids`.
    pub fn of(answer: &Value) -> Result<Answer> {
        let choices = answer["choices"].as_array().context("no choices")?;
        Ok(Answer { choices: choices.iter().map(Choice::of).collect::<Result<_>>()? })
    }

    /// Returns the number of tokens of all choices.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.choices.iter().map(|choice| choice.tokens.len()).sum()
    }
}

impl Choice {
    fn of(choice: &Value) -> Result<Choice> {
        let tokens = choice["token_ids"].as_array().context("no token_ids")?;
        let tokens: Vec<u64> = tokens.iter().map(Value::as_u64).collect::<Option<_>>().context("token_ids")?;
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().context("no token_logprobs")?;
        let logprobs: Vec<u32> = logprobs.iter().map(bits).collect::<Result<_>>()?;
        ensure!(logprobs.len() == tokens.len(), "{} log-probabilities for {} tokens", logprobs.len(), tokens.len());
        let top = choice["logprobs"]["top_logprobs"].as_array().context("no top_logprobs")?;
        let top = top.iter().map(alternatives).collect::<Result<_>>()?;
        let finish_reason = choice["finish_reason"].as_str().context("no finish_reason")?.to_string();
        let prompt = choice["prompt_logprobs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let prompt = prompt.iter().map(scores).collect::<Result<_>>()?;
        Ok(Choice { finish_reason, tokens, logprobs, top, prompt })
    }
}

fn alternatives(top: &Value) -> Result<Vec<(String, u32)>> {
    let top = top.as_object().context("top_logprobs entry")?;
    top.iter().map(|(token, logprob)| Ok((token.clone(), bits(logprob)?))).collect()
}

/// Reads the scores in one place of a prompt; the first has none.
fn scores(place: &Value) -> Result<Vec<(String, u32)>> {
    let scores = place.as_object().into_iter().flatten();
    scores.map(|(token, score)| Ok((token.clone(), bits(&score["logprob"])?))).collect()
}

/// Converts a JSON number to an f32: its text is the shortest one that reads back as the same f32.
fn bits(number: &Value) -> Result<u32> {
    Ok((number.as_f64().with_context(|| format!("{number} is not a number"))? as f32).to_bits())
}

/// First difference of a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    request: usize,
    choice: usize,
    /// Tokens that differ, or that only one side has.
    tokens: usize,
    /// Log-probabilities (chosen and alternative) whose bits differ.
    bits: usize,
    first: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { request, choice, tokens, bits, first } = self;
        write!(f, "request {request} choice {choice}: {tokens} tokens, {bits} log-probabilities; first: {first}")
    }
}

/// Returns every choice that differs.
#[must_use]
pub fn compare(baseline: &[Answer], answers: &[Answer]) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (request, (expected, found)) in baseline.iter().zip(answers).enumerate() {
        for choice in 0..expected.choices.len().max(found.choices.len()) {
            let pair = (expected.choices.get(choice), found.choices.get(choice));
            differences.extend(match pair {
                (Some(expected), Some(found)) => difference(request, choice, expected, found),
                _ => Some(missing(request, choice)),
            });
        }
    }
    differences
}

/// Summarises differences in a sentence for the table.
#[must_use]
pub fn verdict(differences: &[Difference]) -> String {
    let tokens: usize = differences.iter().map(|difference| difference.tokens).sum();
    let bits: usize = differences.iter().map(|difference| difference.bits).sum();
    format!("{tokens} tokens, {bits} log-probabilities differ")
}

fn missing(request: usize, choice: usize) -> Difference {
    Difference { request, choice, tokens: 1, bits: 0, first: "only one side has this choice".to_string() }
}

fn difference(request: usize, choice: usize, expected: &Choice, found: &Choice) -> Option<Difference> {
    if expected == found {
        return None;
    }
    let tokens = count(&expected.tokens, &found.tokens);
    let bits = count(&expected.logprobs, &found.logprobs)
        + count(&expected.top, &found.top)
        + count(&expected.prompt, &found.prompt);
    let at = expected.tokens.iter().zip(&found.tokens).position(|(expected, found)| expected != found);
    let first = match at {
        Some(at) => format!("token {at} is {} instead of {}", found.tokens[at], expected.tokens[at]),
        None if expected.finish_reason != found.finish_reason => {
            format!("it ended with {} instead of {}", found.finish_reason, expected.finish_reason)
        }
        None => "the tokens are the same".to_string(),
    };
    Some(Difference { request, choice, tokens, bits, first })
}

fn count<T: PartialEq>(expected: &[T], found: &[T]) -> usize {
    let unequal = expected.iter().zip(found).filter(|(expected, found)| expected != found).count();
    unequal + expected.len().abs_diff(found.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(token: u32, logprob: f32) -> Answer {
        let choice = json!({
            "finish_reason": "length", "token_ids": [5, token],
            "logprobs": {"token_logprobs": [-0.5, logprob], "top_logprobs": [{"a": -0.5}, {"b": logprob}]},
            "prompt_logprobs": [null, {"3": {"logprob": logprob, "rank": 1}}],
        });
        Answer::of(&json!({"choices": [choice]})).unwrap()
    }

    #[test]
    fn one_bit_is_a_difference() {
        let logprob = -1.234_567_8_f32;
        assert_eq!(compare(&[answer(7, logprob)], &[answer(7, logprob)]), []);
        let found = compare(&[answer(7, logprob)], &[answer(7, f32::from_bits(logprob.to_bits() + 1))]);
        assert_eq!(verdict(&found), "0 tokens, 3 log-probabilities differ");
        let found = compare(&[answer(7, logprob)], &[answer(8, logprob)]);
        assert_eq!(
            found[0].to_string(),
            "request 0 choice 0: 1 tokens, 0 log-probabilities; first: token 1 is 8 instead of 7"
        );
    }
}
