//! `baton chat`: a conversation in the terminal, streamed, with TTFT and TPOT after each answer.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::http::Client;

/// What to talk to and how.
#[derive(Debug, clap::Args)]
pub struct ChatArgs {
    /// The router to talk to.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    target: String,
    /// Model name; the first that the router serves if not given.
    #[arg(long)]
    model: Option<String>,
    /// System prompt.
    #[arg(long)]
    system: Option<String>,
    /// Most tokens per answer.
    #[arg(long, default_value_t = 512)]
    max_tokens: u32,
    /// 0 is greedy.
    #[arg(long)]
    temperature: Option<f32>,
    /// One question instead of a conversation.
    prompt: Vec<String>,
}

/// Talks until the input ends.
pub async fn run(args: ChatArgs) -> Result<()> {
    let client = Client::new(&args.target)?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => first_model(&client).await.with_context(|| format!("is `baton serve` running at {}?", args.target))?,
    };
    let mut messages = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    if !args.prompt.is_empty() {
        messages.push(json!({"role": "user", "content": args.prompt.join(" ")}));
        answer(&client, &args, &model, &messages).await?;
        return Ok(());
    }
    converse(&client, &args, &model, messages).await
}

async fn converse(client: &Client, args: &ChatArgs, model: &str, mut messages: Vec<Value>) -> Result<()> {
    println!("talking to {model}; an empty line or Ctrl-D ends");
    let mut lines = std::io::stdin().lock().lines();
    loop {
        print!("> ");
        std::io::stdout().flush()?;
        let Some(line) = lines.next().transpose()?.filter(|line| !line.trim().is_empty()) else {
            return Ok(());
        };
        messages.push(json!({"role": "user", "content": line}));
        let text = answer(client, args, model, &messages).await?;
        messages.push(json!({"role": "assistant", "content": text}));
    }
}

async fn first_model(client: &Client) -> Result<String> {
    let (_, body) = client.get("/v1/models").await?;
    let models: Value = serde_json::from_str(&body).context("/v1/models is not JSON")?;
    Ok(models["data"][0]["id"].as_str().context("the router serves no model")?.to_string())
}

async fn answer(client: &Client, args: &ChatArgs, model: &str, messages: &[Value]) -> Result<String> {
    let mut body = json!({
        "model": model, "messages": messages, "max_tokens": args.max_tokens,
        "stream": true, "stream_options": {"include_usage": true},
    });
    if let Some(temperature) = args.temperature {
        body["temperature"] = json!(temperature);
    }
    let mut watch = Stopwatch::start();
    let mut stream = client.stream("/v1/chat/completions", &body).await?;
    let mut text = String::new();
    let mut tokens = 0;
    while let Some(event) = stream.next().await? {
        if let Some(piece) = event["choices"][0]["delta"]["content"].as_str().filter(|piece| !piece.is_empty()) {
            watch.mark();
            print!("{piece}");
            std::io::stdout().flush()?;
            text.push_str(piece);
        }
        tokens = event["usage"]["completion_tokens"].as_u64().unwrap_or(tokens);
    }
    println!();
    // The answer goes to standard output; what is said about it must not end up in a pipe.
    eprintln!("{}", watch.summary(tokens));
    Ok(text)
}

struct Stopwatch {
    start: Instant,
    first: Option<Duration>,
    last: Duration,
}

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch { start: Instant::now(), first: None, last: Duration::ZERO }
    }

    fn mark(&mut self) {
        self.last = self.start.elapsed();
        self.first.get_or_insert(self.last);
    }

    fn summary(&self, tokens: u64) -> String {
        let Some(first) = self.first else { return "no text".to_string() };
        let ttft_ms = first.as_secs_f64() * 1e3;
        if tokens < 2 {
            return format!("TTFT {ttft_ms:.1} ms · {tokens} token");
        }
        let tpot_ms = (self.last - first).as_secs_f64() * 1e3 / (tokens - 1) as f64;
        format!("TTFT {ttft_ms:.1} ms · TPOT {tpot_ms:.2} ms · {tokens} tokens")
    }
}
