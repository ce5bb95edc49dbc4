//! The scheduling that a script's configuration names; knows no event.

use super::words::{Words, span};
use crate::cost::{Fitted, Latency, StepBudget};
use crate::scheduling::{
    AGEING_TOKENS_PER_S, Admission, DecodeOrder, MlfqConfig, PastFuture, PrefillOrder, Scheduling,
};
use crate::{Slo, Span};

/// `prefill=shortest decode=mlfq batch=2 admission=past-future budget=auto`, what is not named as it is by default. With
/// `learned` the worker learns the latency model, else it is the example.
pub(super) fn scheduling(words: &Words) -> Scheduling {
    let is_learned = words.plain.contains(&"learned");
    let latency = if is_learned { Latency::Learned } else { Latency::Given(Fitted::example()) };
    let prefill = match words.named.get("prefill") {
        None => PrefillOrder::Fcfs,
        Some(&"shortest") => PrefillOrder::ShortestFirst { ageing_tokens_per_s: AGEING_TOKENS_PER_S },
        Some(&"slack") => PrefillOrder::SlackFirst(latency),
        Some(other) => panic!("no such order: {other}"),
    };
    let decode = match words.named.get("decode") {
        None => DecodeOrder::Fcfs,
        Some(&"mlfq") => DecodeOrder::Mlfq(MlfqConfig::published(words.number("batch", 1), latency)),
        Some(other) => panic!("no such order: {other}"),
    };
    let admission = match words.named.get("admission") {
        None => Admission::Aggressive,
        Some(&"conservative") => Admission::Conservative,
        Some(&"past-future") => {
            let window = words.number("window", PastFuture::default().window);
            Admission::PastFuture(PastFuture { window, ..PastFuture::default() })
        }
        Some(other) => panic!("no such admission: {other}"),
    };
    let budget = match words.named.get("budget") {
        None => StepBudget::Constant,
        Some(&"auto") => StepBudget::Auto(latency),
        Some(other) => panic!("no such budget: {other}"),
    };
    Scheduling { prefill, decode, admission, budget }
}

/// `ttft=300ms tpot=20ms`.
pub(super) fn slo(words: &Words) -> Slo {
    let target = |name| words.named.get(name).map(|word| -> Span { span(word) });
    Slo { class: 0, ttft: target("ttft"), tpot: target("tpot"), itl_tail: target("itl") }
}
