//! Tokens from which a chat template builds turns, found by trying it; knows no HTTP.
//!
//! Some vocabularies do not mark these as special, although they decide who speaks.

use std::collections::BTreeSet;

use sched::TokenId;

use super::message::{Message, Role};
use super::template::{ChatTemplate, GenerationPrompt};
use super::tokenizer::Tokenizer;
use crate::jinja::Rendered;

/// Returns the added tokens that `template` writes around instructions and a question, and the one that opens the
/// answer; or all that look like tags if it renders no conversation (it wants client variables, or takes too long).
///
/// Later tags at the start of the answer (an empty thought, say) do not count: models write such tags themselves, and
/// clients send them back.
pub(super) fn turn_tokens(template: &ChatTemplate, tokenizer: &Tokenizer) -> BTreeSet<TokenId> {
    let question = Message::text(Role::User, "a");
    let conversations = [vec![Message::text(Role::System, "b"), question.clone()], vec![question]];
    let render = |messages: &[Message], prompt| template.try_prompt(messages, prompt).ok();
    let asked = conversations.iter().find_map(|messages| {
        Some((render(messages, GenerationPrompt::Omit)?, render(messages, GenerationPrompt::Add)?))
    });
    let tags = tokenizer.inner().get_added_tokens_decoder().into_iter().filter(|(_, token)| is_tag(&token.content));
    let tags: Vec<(u32, String)> = tags.map(|(id, token)| (id, token.content)).collect();
    // Nothing was rendered, so any tag may open a turn.
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

/// Returns the template's own text, with a NUL for each part that was given.
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

/// Excludes words and runs of spaces, which are added tokens in some vocabularies.
fn is_tag(content: &str) -> bool {
    content.chars().count() > 2 && content.chars().next().is_some_and(|c| !c.is_alphanumeric() && !c.is_whitespace())
}
