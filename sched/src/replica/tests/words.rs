//! The words of a script's lines; knows no event.

use std::collections::BTreeMap;

use crate::{Attempt, Leg, RequestId, Span};

/// The words of a line: plain ones and `key=value` ones.
pub(super) struct Words<'a> {
    pub(super) plain: Vec<&'a str>,
    pub(super) named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a str) -> Words<'a> {
        let (named, plain): (Vec<_>, Vec<_>) = line.split_whitespace().skip(1).partition(|word| word.contains('='));
        Words { plain, named: named.into_iter().filter_map(|word| word.split_once('=')).collect() }
    }

    pub(super) fn number(&self, name: &str, default: u32) -> u32 {
        self.named.get(name).map_or(default, |value| value.parse().expect(name))
    }

    pub(super) fn real(&self, name: &str, default: f32) -> f32 {
        self.named.get(name).map_or(default, |value| value.parse().expect(name))
    }

    pub(super) fn leg(&self) -> Leg {
        leg(self.plain[0])
    }
}

pub(super) fn leg(word: &str) -> Leg {
    let (request, attempt) = word[1..].split_once('.').unwrap_or((&word[1..], "0"));
    Leg { request: RequestId(request.parse().expect(word)), attempt: Attempt(attempt.parse().expect(word)) }
}

pub(super) fn span(word: &str) -> Span {
    if let Some(us) = word.strip_suffix("us") {
        return Span(us.parse().expect(word));
    }
    match word.strip_suffix("ms") {
        Some(ms) => Span::from_ms(ms.parse().expect(word)),
        None => Span::from_secs(word.trim_end_matches('s').parse().expect(word)),
    }
}
