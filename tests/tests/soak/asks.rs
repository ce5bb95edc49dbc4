//! Requests of a soak through every API that generates, and what each must answer; knows no fault.

use anyhow::{Context, Result, ensure};
use client::Error;
use client::http::Client;
use serde_json::{Value, json};

use crate::dice::Dice;

/// Lengths of prompts; each is asked in every way.
const PROMPTS: u32 = 6;
const WORDS: [&str; 12] =
    ["once", "a", "small", "bird", "and", "the", "old", "king", "went", "home", "before", "winter"];

/// Request whose answer is always the same: greedy, or with a seed.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    api: Api,
    body: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Completions,
    Chat,
    Responses,
    Messages,
}

/// Way in which an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Streamed,
}

/// What one choice has said, and how it ended; empty ends are missing ones.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Said {
    text: String,
    /// Log-probabilities, where the request asks for them: equal bits give equal digits.
    logprobs: Vec<String>,
    end: String,
}

/// Returns every request of the soak.
pub(crate) fn asks() -> Vec<Ask> {
    (0..PROMPTS).flat_map(asks_of_prompt).collect()
}

fn asks_of_prompt(number: u32) -> Vec<Ask> {
    let mut dice = Dice::new(u64::from(number) + 1);
    let words = 10 + 50 * u64::from(number);
    let text: Vec<&str> = (0..words).map(|_| WORDS[dice.below(WORDS.len() as u64) as usize]).collect();
    let (text, tokens) = (text.join(" "), 24 + 20 * number);
    let user = json!([{"role": "user", "content": text}]);
    let all = [
        (Api::Completions, json!({"prompt": text, "max_tokens": tokens, "temperature": 0, "logprobs": 1})),
        (Api::Completions, json!({"prompt": text, "max_tokens": tokens, "seed": number, "n": 2, "logprobs": 1})),
        (Api::Chat, json!({"messages": user, "max_tokens": tokens, "temperature": 0})),
        (Api::Chat, json!({"messages": user, "max_tokens": tokens, "seed": number, "n": 2, "stop": ["zebra"]})),
        (Api::Responses, json!({"input": text, "max_output_tokens": tokens, "temperature": 0})),
        (Api::Messages, json!({"messages": user, "max_tokens": tokens, "temperature": 1, "seed": number})),
    ];
    let endless = |(api, mut body): (Api, Value)| {
        body["ignore_eos"] = json!(true);
        Ask { api, body }
    };
    all.into_iter().map(endless).collect()
}

impl Ask {
    /// Asks in the given form; an error is one of the client's, or an answer that is not of this API's form.
    pub(crate) async fn put(&self, client: &Client, form: Form) -> Result<Vec<Said>> {
        let (mut body, path) = (self.body.clone(), self.api.path());
        if form == Form::Whole {
            let answer = client.post(path, &body).await?;
            return self.api.whole(&answer).with_context(|| format!("{path}: {answer}"));
        }
        body["stream"] = json!(true);
        let mut events = client.stream(path, body.to_string().into()).await?;
        let mut said = Vec::new();
        loop {
            match events.next().await {
                Ok(Some(event)) => {
                    self.api.add(&mut said, &event).with_context(|| format!("{path}: event {event}"))?;
                }
                Ok(None) => return Ok(said),
                // Streams of these two end with an event of their own, whose absence shows in what was said.
                Err(Error::Unfinished) if matches!(self.api, Api::Responses | Api::Messages) => return Ok(said),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Api {
    const fn path(self) -> &'static str {
        match self {
            Api::Completions => "/v1/completions",
            Api::Chat => "/v1/chat/completions",
            Api::Responses => "/v1/responses",
            Api::Messages => "/v1/messages",
        }
    }

    fn whole(self, answer: &Value) -> Result<Vec<Said>> {
        let mut said = Vec::new();
        match self {
            Api::Completions | Api::Chat => add_choices(&mut said, answer)?,
            Api::Responses => {
                said.push(Said { text: text_of(&answer["output"]), end: word(&answer["status"])?, ..Said::default() });
            }
            Api::Messages => {
                let end = word(&answer["stop_reason"])?;
                said.push(Said { text: text_of(&answer["content"]), end, ..Said::default() });
            }
        }
        Ok(said)
    }

    fn add(self, said: &mut Vec<Said>, event: &Value) -> Result<()> {
        if matches!(self, Api::Completions | Api::Chat) {
            return add_choices(said, event);
        }
        if said.is_empty() {
            said.push(Said::default());
        }
        let only = &mut said[0];
        match event["type"].as_str().context("no type")? {
            "response.output_text.delta" => only.text.push_str(&word(&event["delta"])?),
            "content_block_delta" => only.text.push_str(&word(&event["delta"]["text"])?),
            "message_delta" => only.end.push_str(&word(&event["delta"]["stop_reason"])?),
            "response.completed" | "response.incomplete" => {
                only.end.push_str(&word(&event["response"]["status"])?);
                let repeated = text_of(&event["response"]["output"]);
                ensure!(repeated == only.text, "the last event repeats another text: {repeated:?}");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Adds the choices of an answer, or of one event of it.
fn add_choices(said: &mut Vec<Said>, answer: &Value) -> Result<()> {
    for choice in answer["choices"].as_array().context("no choices")? {
        let index = choice["index"].as_u64().context("no index")? as usize;
        ensure!(index < 16, "index {index}");
        said.resize_with(said.len().max(index + 1), Said::default);
        let part = &mut said[index];
        for text in [&choice["text"], &choice["delta"]["content"], &choice["message"]["content"]] {
            part.text.push_str(text.as_str().unwrap_or_default());
        }
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().into_iter().flatten();
        part.logprobs.extend(logprobs.map(Value::to_string));
        part.end.push_str(choice["finish_reason"].as_str().unwrap_or_default());
    }
    Ok(())
}

/// Returns all texts in a list of items or blocks, whose content may be a list itself.
fn text_of(items: &Value) -> String {
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |item: &Value| match item.get("content") {
        Some(content) => text_of(content),
        None => item["text"].as_str().unwrap_or_default().to_owned(),
    };
    items.iter().map(text).collect()
}

fn word(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{value} is no text"))
}
