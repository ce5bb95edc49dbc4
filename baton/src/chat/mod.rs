//! `baton chat`: a conversation in the terminal, streamed, with TTFT and TPOT after each answer.

mod conversation;
mod input;
mod settings;
mod stopwatch;
mod words;

use anyhow::{Result, bail};

use crate::access::AccessArgs;
use crate::terminal::{OutputError, remark, say};
use conversation::Conversation;
use input::{Editor, Entered};
use settings::Settings;
use words::Words;

/// Tokens of an answer in a context that has room for them.
const ANSWER_TOKENS: u32 = 512;

/// What to talk to and how.
#[derive(Debug, clap::Args)]
pub struct ChatArgs {
    /// The router to talk to: http://host:port or https://host:port, with or without /v1 behind it.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    target: String,
    /// Model name; the first that the router serves if not given.
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// System prompt.
    #[arg(long)]
    system: Option<String>,
    /// Most tokens per answer; 512 if not given, or half of the model's context if that is less.
    #[arg(long)]
    max_tokens: Option<u32>,
    /// 0 is greedy.
    #[arg(long, value_parser = finite, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// One question instead of a conversation; what is piped in stands before it.
    prompt: Vec<String>,
}

fn finite(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or_else(|| "expected a number".to_owned())
}

/// Talks until the input ends. A single question, by argument or piped in, ends after its answer.
pub async fn run(args: ChatArgs) -> Result<()> {
    let client = args.access.client(&args.target)?;
    let piped = tokio::task::spawn_blocking(input::piped).await??;
    let models = match (client.models().await, &args.model) {
        (Ok(models), _) => models,
        // The first question will say what is wrong, at a prompt where one can try again.
        (Err(_), Some(_)) => Vec::new(),
        (Err(error), None) => {
            return Err(unanswered(error, &args.target));
        }
    };
    let is_meant = |(name, _): &(String, Option<u32>)| args.model.as_ref().is_none_or(|model| model == name);
    // A model that is not listed may exist all the same; the server says so if not.
    let (listed, context_tokens) = models.into_iter().find(is_meant).unwrap_or_default();
    let model = args.model.unwrap_or(listed);
    let mut settings = Settings::new(args.max_tokens.unwrap_or_else(|| answer_tokens(context_tokens)));
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

/// Explains why the server has not named its models. Only where nobody listens may it be that none runs.
fn unanswered(error: client::Error, target: &str) -> anyhow::Error {
    let hint = match &error {
        client::Error::Unreachable { .. } | client::Error::ConnectTimeout { .. } => {
            format!("is `baton serve` running at {target}?")
        }
        client::Error::Status { status: 401, .. } => {
            format!("{target} wants a key: --api-key KEY, or OPENAI_API_KEY in the environment")
        }
        _ => format!("asking {target} for its models"),
    };
    anyhow::Error::new(error).context(hint)
}

/// Longest answer if nobody says how long: the rest of the context is for what was said before.
fn answer_tokens(context_tokens: Option<u32>) -> u32 {
    context_tokens.map_or(ANSWER_TOKENS, |tokens| ANSWER_TOKENS.min(tokens / 2).max(1))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by trying: who had no key, or a wrong path, was asked whether the server ran that had just answered.
    #[test]
    fn a_server_that_answered_is_running() {
        let said = |status| {
            let message = "no".to_owned();
            let error = client::Error::Status { path: "/v1/models".to_owned(), status, message };
            crate::cli::told(&unanswered(error, "http://h:1"))
        };
        assert_eq!(said(404), "asking http://h:1 for its models: /v1/models: 404: no");
        let key = "http://h:1 wants a key: --api-key KEY, or OPENAI_API_KEY in the environment: /v1/models: 401: no";
        assert_eq!(said(401), key);
        let source = std::io::ErrorKind::ConnectionRefused.into();
        let down = client::Error::Unreachable { authority: "h:1".to_owned(), source };
        let said = crate::cli::told(&unanswered(down, "http://h:1"));
        assert!(said.starts_with("is `baton serve` running at http://h:1?"), "{said}");
    }

    /// Found by trying: every question to a model with a short context was refused.
    #[test]
    fn an_answer_leaves_room_for_the_conversation() {
        assert_eq!([None, Some(4_096), Some(256), Some(1)].map(answer_tokens), [512, 512, 128, 1]);
    }
}
