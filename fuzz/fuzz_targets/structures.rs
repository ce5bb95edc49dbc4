//! Schemas, regular expressions and grammars: refused, or compiled and followed for a while; knows no request.
//!
//! The first byte says which, the rest is its text.

#![no_main]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use router::openai::{ChatRequest, Limits};
use router::text::Tokenizer;
use sched::TokenId;
use serde_json::{Value, json};
use vocabulary::{GrammarError, Grammars, Matcher};

/// Steps through a grammar.
const STEPS: usize = 24;

struct Vocabulary {
    grammars: Grammars,
    tokens: u32,
}

fn vocabulary() -> &'static Vocabulary {
    static VOCABULARY: OnceLock<Vocabulary> = OnceLock::new();
    VOCABULARY.get_or_init(|| {
        // A panic inside the grammar library is contained by the server, so it must not end this process here.
        std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
        let json = include_bytes!("../../models/demo/tokenizer.json");
        let tokenizer = Tokenizer::from_json(json).expect("the bundled tokenizer is supported");
        let grammars = Grammars::new(tokenizer.pieces()).expect("its vocabulary is supported");
        Vocabulary { grammars, tokens: tokenizer.pieces().len() as u32 }
    })
}

fn grammar(kind: u8, text: &str) -> Option<String> {
    let fields = match kind % 5 {
        0 => json!({"json": serde_json::from_str::<Value>(text).ok()?}),
        1 => json!({"regex": text}),
        2 => json!({"grammar": text}),
        3 => json!({"choice": text.split('\n').collect::<Vec<_>>()}),
        _ => json!({"json": serde_json::from_str::<Value>(text).ok()?, "disable_any_whitespace": true}),
    };
    let body = json!({"messages": [{"role": "user", "content": "x"}], "structured_outputs": fields}).to_string();
    let limits = Limits { n_max: 1, prompts_max: 1, stop_max: 1, stop_bytes_max: 1, vocab_size: 300 };
    Some(ChatRequest::parse(body.as_bytes(), &limits).ok()?.generation.structure?.grammar.to_string())
}

/// Goes on by tokens that are allowed, as the text decides.
fn follow(matcher: &mut Matcher, tokens: u32, text: &[u8]) -> Result<(), GrammarError> {
    for step in 0..STEPS {
        let mask = matcher.mask()?;
        let allowed: Vec<TokenId> = (0..tokens).map(TokenId).filter(|token| mask.allows(*token)).collect();
        assert!(!allowed.is_empty() || mask.may_end(), "nothing may come next");
        let by = text.get(step % text.len().max(1)).copied().unwrap_or_default();
        let Some(token) = allowed.get(usize::from(by) * 7 % allowed.len().max(1)) else { break };
        assert!(matcher.accepts(*token)?, "the mask allows what the grammar does not");
        matcher.push(*token)?;
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let vocabulary = vocabulary();
    let Some((kind, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Some(grammar) = grammar(*kind, text) else { return };
    let compile = AssertUnwindSafe(|| vocabulary.grammars.compile(&grammar));
    if let Ok(Ok(mut matcher)) = catch_unwind(compile) {
        let _ = follow(&mut matcher, vocabulary.tokens, text.as_bytes());
    }
});
