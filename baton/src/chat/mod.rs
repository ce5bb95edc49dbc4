//! `baton chat`: a conversation in the terminal, streamed, with TTFT and TPOT after each answer.

mod conversation;
mod input;
mod settings;
mod stopwatch;
mod words;

use anyhow::{Context, Result, bail};
use client::http::Client;

use crate::terminal::{OutputError, remark, say};
use conversation::Conversation;
use input::{Editor, Entered};
use settings::Settings;
use words::Words;

/// What to talk to and how.
#[derive(Debug, clap::Args)]
pub struct ChatArgs {
    /// The router to talk to: http://host:port, with or without /v1 behind it.
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
    #[arg(long, value_parser = finite)]
    temperature: Option<f32>,
    /// One question instead of a conversation; what is piped in stands before it.
    prompt: Vec<String>,
}

fn finite(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or_else(|| "expected a number".to_owned())
}

/// Talks until the input ends. A single question, by argument or piped in, ends after its answer.
pub async fn run(args: ChatArgs) -> Result<()> {
    let client = Client::new(&args.target)?;
    let piped = tokio::task::spawn_blocking(input::piped).await??;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => {
            let models = client.models().await;
            let models = models.with_context(|| format!("is `baton serve` running at {}?", args.target))?;
            models.into_iter().next().map(|(name, _)| name).unwrap_or_default()
        }
    };
    let mut settings = Settings::new(args.max_tokens);
    if let Some(temperature) = args.temperature {
        settings.set("temperature", &temperature.to_string()).map_err(anyhow::Error::msg)?;
    }
    let mut conversation = Conversation::new(client, model, args.system, settings);
    let asked: Vec<String> = piped.into_iter().chain(std::iter::once(args.prompt.join(" "))).collect();
    let asked = asked.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n");
    if !asked.is_empty() {
        return conversation.ask(asked).await;
    }
    if !input::is_terminal() {
        bail!("nothing was asked: standard input is empty");
    }
    converse(conversation).await
}

async fn converse(mut conversation: Conversation) -> Result<()> {
    say(format_args!("talking to {}; /help lists what else there is, Ctrl-D or /bye ends", conversation.model()))?;
    let mut editor = Editor::new()?;
    loop {
        let entered;
        (editor, entered) = editor.read().await?;
        let line = match entered {
            Entered::Text(line) => line,
            Entered::Cleared => {
                say("Ctrl-D or /bye ends")?;
                continue;
            }
            Entered::End => return Ok(()),
        };
        match Words::of(&line) {
            Words::Nothing => {}
            Words::Leave => return Ok(()),
            Words::Help => say(words::HELP)?,
            Words::Clear => {
                conversation.clear();
                say("forgotten")?;
            }
            Words::Show => say(conversation.settings())?,
            Words::Set { name, value } => say(conversation.set(name, value))?,
            Words::System(text) => {
                conversation.set_system(text);
                say("the system prompt is set; what was said before is forgotten")?;
            }
            Words::Unknown(command) => say(format_args!("there is no {command}; /help lists what there is"))?,
            Words::Question(question) => {
                if let Err(error) = conversation.ask(question.to_owned()).await {
                    if error.is::<OutputError>() {
                        return Err(error);
                    }
                    // The conversation goes on: the next question may be valid, or the server may come back.
                    remark(crate::cli::told(&error));
                }
            }
        }
    }
}
