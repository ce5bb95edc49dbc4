//! The conversation so far, and its continuation: streams an answer to the terminal and remembers it.

use anyhow::Result;
use client::http::Client;
use serde_json::{Value, json};

use super::settings::Settings;
use super::stopwatch::Stopwatch;
use crate::terminal::{murmur, print, remark, say};

pub(super) struct Conversation {
    client: Client,
    model: String,
    system: Option<String>,
    settings: Settings,
    messages: Vec<Value>,
}

/// Answer as far as it has arrived.
#[derive(Default)]
struct Answer {
    text: String,
    stage: Stage,
    /// Token count from the end of the stream.
    tokens: Option<u64>,
}

/// Part of an answer that is being printed.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Nothing,
    /// Thoughts, which go to standard error.
    Thinking,
    Speaking,
}

impl Conversation {
    pub(super) fn new(client: Client, model: String, system: Option<String>, settings: Settings) -> Conversation {
        Conversation { client, model, system, settings, messages: Vec::new() }
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes a parameter; returns a message about it.
    pub(super) fn set(&mut self, name: &str, value: &str) -> String {
        self.settings.set(name, value).unwrap_or_else(|problem| problem)
    }

    pub(super) fn set_system(&mut self, text: &str) {
        self.system = (!text.is_empty()).then(|| text.to_owned());
        self.clear();
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
    }

    /// Asks and prints the answer as it arrives. Ctrl-C stops the answer; its text so far is remembered.
    pub(super) async fn ask(&mut self, question: String) -> Result<()> {
        self.messages.push(json!({"role": "user", "content": question}));
        let mut answer = Answer::default();
        let mut watch = Stopwatch::start();
        let ended = tokio::select! {
            ended = self.stream(&mut answer, &mut watch) => ended,
            // Dropping the stream closes the connection, which ends the request everywhere.
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into),
        };
        if ended.is_err() && answer.text.is_empty() {
            // Without an answer, the question must not be sent again with the next one.
            self.messages.pop();
        } else {
            self.messages.push(json!({"role": "assistant", "content": answer.text}));
            say("")?;
        }
        ended?;
        // The answer goes to standard output; the summary must not end up in a pipe.
        remark(watch.summary(answer.tokens));
        Ok(())
    }

    async fn stream(&self, answer: &mut Answer, watch: &mut Stopwatch) -> Result<()> {
        let mut stream = self.client.stream("/v1/chat/completions", self.body().to_string().into()).await?;
        while let Some(event) = stream.next().await? {
            let delta = &event["choices"][0]["delta"];
            let said = |name: &str| delta[name].as_str().filter(|piece| !piece.is_empty());
            if let Some(thought) = said("reasoning_content").or_else(|| said("reasoning")) {
                watch.mark(stream.arrived());
                murmur(thought);
                answer.stage = Stage::Thinking;
            }
            if let Some(piece) = said("content") {
                watch.mark(stream.arrived());
                if answer.stage == Stage::Thinking {
                    murmur("\n\n");
                }
                answer.stage = Stage::Speaking;
                print(piece)?;
                answer.text.push_str(piece);
            }
            answer.tokens = event["usage"]["completion_tokens"].as_u64().or(answer.tokens);
        }
        Ok(())
    }

    fn body(&self) -> Value {
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = system.chain(self.messages.iter().cloned()).collect();
        let mut body = json!({
            "model": self.model, "messages": messages, "stream": true, "stream_options": {"include_usage": true},
        });
        self.settings.put_into(&mut body);
        body
    }
}
