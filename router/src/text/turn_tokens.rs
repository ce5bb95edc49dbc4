//! The tokens that a chat template builds turns from, found out by trying it; knows no HTTP.
//!
//! Some vocabularies do not mark these as special, although they decide who speaks.

use std::collections::BTreeSet;

use sched::TokenId;

use super::message::{Message, Role};
use super::template::{ChatTemplate, GenerationPrompt};
use super::tokenizer::Tokenizer;
use crate::jinja::Rendered;

/// The added tokens that `template` writes around instructions and a question, and the one that opens the answer.
///
/// Where the conversations cannot be rendered (the template wants variables of the client's, or takes too long), all added
/// tokens that look like tags.
///
/// What the template writes into the model's mouth after that (an empty thought, for one) is none of them: models
/// write such tags themselves, and clients send them back.
pub(super) fn turn_tokens(template: &ChatTemplate, tokenizer: &Tokenizer) -> BTreeSet<TokenId> {
    let question = Message::text(Role::User, "a");
    let conversations = [vec![Message::text(Role::System, "b"), question.clone()], vec![question]];
    let render = |messages: &[Message], prompt| template.try_prompt(messages, prompt).ok();
    let asked = conversations.iter().find_map(|messages| {
        Some((render(messages, GenerationPrompt::Omit)?, render(messages, GenerationPrompt::Add)?))
    });
    let tags = tokenizer.inner().get_added_tokens_decoder().into_iter().filter(|(_, token)| is_tag(&token.content));
    let tags: Vec<(u32, String)> = tags.map(|(id, token)| (id, token.content)).collect();
    // What it writes is not known: any of them may open a turn.
    let Some((closed, open)) = asked else { return tags.into_iter().map(|(id, _)| TokenId(id)).collect() };
    let written = own(&closed);
    let opening = open.text.strip_prefix(&closed.text).unwrap_or_default();
    let first = tags
        .iter()
        .filter_map(|(id, content)| opening.find(content).map(|at| (at, usize::MAX - content.len(), *id)))
        .min()
        .map(|(_, _, id)| id);
    let around = tags.iter().filter(|(_, content)| written.contains(content)).map(|(id, _)| *id);
    around.chain(first).map(TokenId).collect()
}

/// What the template wrote itself, with a NUL where something was given.
fn own(prompt: &Rendered) -> String {
    let mut out = String::new();
    let mut from = 0;
    for given in &prompt.given {
        out.push_str(&prompt.text[from..given.start]);
        out.push('\0');
        from = given.end;
    }
    out.push_str(&prompt.text[from..]);
    out
}

/// Words and runs of spaces are added tokens of some vocabularies; they open no turn.
fn is_tag(content: &str) -> bool {
    content.chars().count() > 2 && content.chars().next().is_some_and(|c| !c.is_alphanumeric() && !c.is_whitespace())
}
