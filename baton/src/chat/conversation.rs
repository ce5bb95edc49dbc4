//! What was said so far, and asking for more: streams an answer to the terminal and remembers it.

use anyhow::Result;
use serde_json::{Value, json};

use super::settings::Settings;
use super::stopwatch::Stopwatch;
use crate::http::Client;
use crate::terminal::{print, remark, say};

/// A conversation with one model.
pub(super) struct Conversation {
    client: Client,
    model: String,
    system: Option<String>,
    settings: Settings,
    messages: Vec<Value>,
}

/// An answer, as far as it came.
#[derive(Default)]
struct Answer {
    text: String,
    /// Said at its end.
    tokens: Option<u64>,
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

    /// Changes a parameter; what to say about it.
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

    /// Asks and prints the answer as it comes. Ctrl-C stops the answer; what was said of it is remembered.
    pub(super) async fn ask(&mut self, question: String) -> Result<()> {
        self.messages.push(json!({"role": "user", "content": question}));
        let mut answer = Answer::default();
        let mut watch = Stopwatch::start();
        let ended = tokio::select! {
            ended = self.stream(&mut answer, &mut watch) => ended,
            // Dropping the stream hangs up, which ends the request everywhere.
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into),
        };
        if ended.is_err() && answer.text.is_empty() {
            // It was never answered: asking again must not ask twice.
            self.messages.pop();
        } else {
            self.messages.push(json!({"role": "assistant", "content": answer.text}));
            say("")?;
        }
        ended?;
        // The answer goes to standard output; what is said about it must not end up in a pipe.
        remark(watch.summary(answer.tokens));
        Ok(())
    }

    async fn stream(&self, answer: &mut Answer, watch: &mut Stopwatch) -> Result<()> {
        let mut stream = self.client.stream("/v1/chat/completions", &self.body()).await?;
        while let Some(event) = stream.next().await? {
            if let Some(piece) = event["choices"][0]["delta"]["content"].as_str().filter(|piece| !piece.is_empty()) {
                watch.mark(stream.arrived());
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
