//! Choices that follow grammars over the bundled model's vocabulary.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sched::{FailureKind, SamplingParams, SlotId, SlotInit, Structure, TokenId, rng};
use vocabulary::{Pieces, SpecialTokens, read_tokenizer};

use super::*;
use crate::sampling::{Choices, Sampler};

const SCHEMA: &str = r#"start: %json {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}}, "required": ["name", "age"], "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}}"#;

fn model_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo"))
}

impl Preparing {
    /// A grammar that nobody compiles.
    pub(crate) fn pending() -> Preparing {
        Preparing(Arc::new(Compiled { grammar: "".into(), start: OnceLock::new() }))
    }

    /// Number of those who keep it.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Ends it as one that is not valid.
    pub(crate) fn end(&self) {
        self.0.start.get_or_init(|| Err(GrammarError("it is over".to_owned())));
    }
}

impl Follower {
    fn follows(&self, compiled: &Arc<Compiled>) -> bool {
        Arc::ptr_eq(&self.choice.lock().unwrap().compiled, compiled)
    }
}

impl Structures {
    /// Grammars of a worker that compiles nothing until it is told to.
    pub(crate) fn paused() -> (Structures, Sender<()>) {
        let structures = Structures::new("no such folder".into());
        let (resume, resumed) = bounded(1);
        let (begun, has_begun) = bounded(1);
        let shared = Arc::clone(&structures.shared);
        std::thread::spawn(move || {
            shared.grammars.get_or_init(|| {
                let _test_has_ended = begun.send(());
                let _test_has_ended = resumed.recv();
                Err(GrammarError("it was paused".to_owned()))
            });
        });
        has_begun.recv().unwrap();
        (structures, resume)
    }
}

struct Model {
    pieces: Pieces,
    end: TokenId,
}

fn model() -> Model {
    let file = model_dir().join("tokenizer.json");
    let tokenizer = read_tokenizer(&file, &mut SpecialTokens::default()).unwrap();
    let end = tokenizer.token_to_id("<|im_end|>").or_else(|| tokenizer.token_to_id("</s>")).unwrap();
    Model { pieces: Pieces::compile(&tokenizer).unwrap(), end: TokenId(end) }
}

fn init(grammar: &str, end: TokenId, generated: &[TokenId], params: SamplingParams) -> SlotInit {
    let structure = Structure { grammar: grammar.into(), ends: vec![end] };
    SlotInit {
        slot: SlotId(0),
        seed: 0,
        params: Arc::new(SamplingParams { structure: Some(Arc::new(structure)), stop_tokens: vec![end], ..params }),
        prompt: vec![TokenId(0)].into(),
        generated: generated.to_vec(),
    }
}

/// A row of logits that depends on nothing but `seed` and `position`.
fn logits(vocab: usize, seed: u64, position: usize) -> Vec<f32> {
    (0..vocab as u32).map(|token| (rng::uniform_f64(seed, position as u64, token) * 8.0) as f32).collect()
}

/// Samples until the end token, at most `most` tokens; `replay` rebuilds the sampler before every token.
fn answer(model: &Model, grammar: &str, seed: u64, most: usize, replay: bool) -> Vec<TokenId> {
    let structures = Structures::new(model_dir());
    let params = || SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let mut sampler = Sampler::new(Choices::new(structures.clone()));
    sampler.admit(&init(grammar, model.end, &[], params()));
    let mut tokens = Vec::new();
    while tokens.len() < most && tokens.last() != Some(&model.end) {
        if replay {
            sampler = Sampler::new(Choices::new(Structures::new(model_dir())));
            sampler.admit(&init(grammar, model.end, &tokens, params()));
        }
        let row = logits(model.pieces.len(), seed, tokens.len());
        tokens.push(sampler.sample(SlotId(0), &row).unwrap().unwrap().token);
    }
    tokens
}

fn text(model: &Model, tokens: &[TokenId]) -> String {
    let shown = tokens.iter().filter(|token| **token != model.end);
    String::from_utf8(shown.flat_map(|token| model.pieces.bytes(*token)).copied().collect()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the model says, the answer is an object of the schema, and a choice that is rebuilt by replay at every
    /// token says the same.
    #[test]
    fn any_model_follows_the_schema_also_after_every_replay(seed in any::<u64>()) {
        let model = model();
        let tokens = answer(&model, SCHEMA, seed, 400, false);
        prop_assert_eq!(tokens.last(), Some(&model.end), "{}", text(&model, &tokens));
        let value: serde_json::Value = serde_json::from_str(&text(&model, &tokens)).unwrap();
        prop_assert!(value["name"].as_str().unwrap().chars().count() <= 8);
        prop_assert!(value["age"].is_i64() || value["age"].is_u64() || value["age"].is_f64());
        if seed % 4 == 0 {
            prop_assert_eq!(answer(&model, SCHEMA, seed, 400, true), tokens);
        }
    }
}

#[test]
fn an_end_that_does_not_end_the_choice_is_repeated() {
    let model = model();
    let structures = Structures::new(model_dir());
    let mut sampler = Sampler::new(Choices::new(structures));
    let params = SamplingParams { temperature: 0.0, min_tokens: 9, ..SamplingParams::default() };
    sampler.admit(&init(r#"start: "a""#, model.end, &[], params));
    let row = logits(model.pieces.len(), 1, 0);
    let tokens: Vec<TokenId> = (0..4).map(|_| sampler.sample(SlotId(0), &row).unwrap().unwrap().token).collect();
    assert_eq!(model.pieces.bytes(tokens[0]), b"a");
    assert_eq!(tokens[1..], [model.end; 3], "the text is complete, and min_tokens asks for more");
}

#[test]
fn min_tokens_bars_the_end_while_the_text_may_go_on() {
    let model = model();
    let mut sampler = Sampler::new(Choices::new(Structures::new(model_dir())));
    let params = SamplingParams { temperature: 0.0, min_tokens: 3, ..SamplingParams::default() };
    sampler.admit(&init(r"start: /a*/", model.end, &[], params));
    let mut row = vec![0.0; model.pieces.len()];
    row[model.end.0 as usize] = 9.0;
    let tokens: Vec<TokenId> = (0..4).map(|_| sampler.sample(SlotId(0), &row).unwrap().unwrap().token).collect();
    assert!(tokens[..3].iter().all(|token| *token != model.end), "{tokens:?}");
    assert_eq!(tokens[3], model.end);
}

#[test]
fn other_masks_hold_within_the_grammar_but_not_at_its_end() {
    let model = model();
    let token = |text: &[u8]| (0..).map(TokenId).find(|token| model.pieces.bytes(*token) == text).unwrap();
    let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|text| token(text));
    let mut allowed_tokens = vec![a, b, d];
    allowed_tokens.sort_unstable();
    let masked =
        SamplingParams { temperature: 0.0, allowed_tokens, bad_words: vec![vec![a]], ..SamplingParams::default() };
    let mut sampler = Sampler::new(Choices::new(Structures::new(model_dir())));
    sampler.admit(&init(r#"start: ("a" | "b" | "c") "d""#, model.end, &[], masked.clone()));
    let mut row = vec![0.0; model.pieces.len()];
    for (token, logit) in [(c, 3.0), (a, 2.0), (b, 1.0)] {
        row[token.0 as usize] = logit;
    }
    let tokens: Vec<TokenId> = (0..3).map(|_| sampler.sample(SlotId(0), &row).unwrap().unwrap().token).collect();
    assert_eq!(tokens, [b, d, model.end]);
    sampler.admit(&init(r#"start: "a" | "c""#, model.end, &[], masked));
    let failure = sampler.sample(SlotId(0), &row).unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
    assert!(failure.detail.contains("allowed_token_ids") && failure.detail.contains("structure"), "{failure}");
}

/// Also in a row that is longer than the vocabulary, and where the row before had other tokens.
#[test]
fn a_copy_without_the_barred_tokens_is_a_copy_that_they_are_barred_from() {
    let model = model();
    let structure = Arc::new(Structure { grammar: SCHEMA.into(), ends: vec![model.end, TokenId(1 << 20)] });
    let tokens = answer(&model, SCHEMA, 3, 400, false);
    let structures = Structures::new(model_dir());
    let mut copied = vec![1.0; 7];
    for said in 0..tokens.len() {
        let follower = structures.follow(&structure, &tokens[..said]);
        let raw = logits(model.pieces.len() + 40, 5, said);
        let mut barred = raw.clone();
        follower.allowed(|allowed| allowed.bar(&raw, &mut barred)).unwrap();
        follower.allowed(|allowed| allowed.copy(&raw, &mut copied)).unwrap();
        assert_eq!(copied, barred, "after {said} tokens");
    }
}

#[test]
fn a_grammar_that_cannot_be_followed_fails_its_choice_only() {
    let model = model();
    let mut sampler = Sampler::new(Choices::new(Structures::new(model_dir())));
    let greedy = || SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    sampler.admit(&init("start: nonsense", model.end, &[], greedy()));
    sampler.admit(&SlotInit { slot: SlotId(1), ..init(r#"start: "a""#, model.end, &[], greedy()) });
    let row = logits(model.pieces.len(), 1, 0);
    let failure = sampler.sample(SlotId(0), &row).unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
    assert!(failure.detail.contains("nonsense"), "{failure}");
    assert!(sampler.sample(SlotId(1), &row).unwrap().is_ok());
}

#[test]
fn a_worker_without_a_tokenizer_says_so() {
    let mut sampler = Sampler::new(Choices::new(Structures::new("no such folder".into())));
    sampler.admit(&init(r#"start: "a""#, TokenId(1), &[], SamplingParams::default()));
    let failure = sampler.sample(SlotId(0), &[0.0; 8]).unwrap().unwrap_err();
    assert!(
        failure.detail.contains("this worker follows no grammars") && failure.detail.contains("tokenizer.json"),
        "{failure}"
    );
}

#[test]
fn the_threads_end_with_their_worker() {
    let structures = Structures::new(model_dir());
    let preparing = structures.prepare(&Structure { grammar: r#"start: "a""#.into(), ends: vec![] }).unwrap();
    let shared = Arc::downgrade(&structures.shared);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !preparing.is_over() {
        assert!(std::time::Instant::now() < deadline, "nobody compiles");
        std::thread::yield_now();
    }
    assert!(structures.prepare(&Structure { grammar: r#"start: "a""#.into(), ends: vec![] }).unwrap().is_over());
    drop((preparing, structures));
    while shared.strong_count() > 0 {
        assert!(std::time::Instant::now() < deadline, "a thread keeps the grammars");
        std::thread::yield_now();
    }
}

/// Found by reading: the end of a worker waited for its last step, all rows of which compiled a grammar of their own.
#[test]
fn a_worker_that_stops_compiles_nothing_and_computes_no_mask() {
    let model = model();
    let structures = Structures::new(model_dir());
    let greedy = || SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let row = logits(model.pieces.len(), 1, 0);
    let mut sampler = Sampler::new(Choices::new(structures.clone()));
    sampler.admit(&init("start: /a+/", model.end, &[], greedy()));
    assert!(sampler.sample(SlotId(0), &row).unwrap().is_ok());
    structures.stop();
    sampler.admit(&SlotInit { slot: SlotId(1), ..init("start: \"b\"", model.end, &[], greedy()) });
    let failure = sampler.sample(SlotId(1), &row).unwrap().unwrap_err();
    assert!(failure.detail.contains("this worker stops"), "{failure}");
    let known = structures.kept().get(&"start: \"b\"".into());
    assert!(known.compile(&structures.shared).is_err());
}

/// One thread compiled for all: a slow grammar let every other request wait.
#[test]
fn a_slow_grammar_does_not_delay_a_quick_one() {
    let (release, released) = bounded::<()>(1);
    let (done, compiled) = bounded(2);
    let work = move |name: Arc<&'static str>| {
        if *name == "slow" {
            let _test_has_ended = released.recv();
        }
        let _test_has_ended = done.send(*name);
    };
    let sender = threads("grammars", COMPILING_THREADS, work).unwrap();
    let (slow, quick) = (Arc::new("slow"), Arc::new("quick"));
    for name in [&slow, &quick] {
        assert_eq!(hand_over(Some(&sender), Arc::downgrade(name)), Taken::Yes);
    }
    let wait = Duration::from_secs(20);
    assert_eq!(compiled.recv_timeout(wait), Ok("quick"));
    release.send(()).unwrap();
    assert_eq!(compiled.recv_timeout(wait), Ok("slow"));
}

/// More than 64 grammars in use threw one another away, so that a step had to compile.
#[test]
fn a_grammar_in_use_is_not_compiled_again() {
    let structures = Structures::new(model_dir());
    let structure = |index: usize| Structure { grammar: format!("start: \"{index}\"").into(), ends: vec![] };
    let in_use: Vec<Preparing> = (0..200).map(|index| structures.prepare(&structure(index)).unwrap()).collect();
    for (index, preparing) in in_use.iter().enumerate() {
        preparing.0.compile(&structures.shared).as_ref().unwrap();
        assert!(preparing.0.bytes() > GRAMMAR_BYTES_LEAST + preparing.0.grammar.len() * BYTES_PER_GRAMMAR_BYTE);
        let follower = structures.follow(&Arc::new(structure(index)), &[]);
        assert!(follower.follows(&preparing.0), "{index}");
    }
}

#[test]
fn a_text_teaches_those_after_it_and_changes_no_mask() {
    let model = model();
    let structures = Structures::new(model_dir());
    let greedy = || SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let compiled = structures.kept().get(&SCHEMA.into());
    let mut answers = Vec::new();
    let mut known = Vec::new();
    for _ in 0..3 {
        let mut sampler = Sampler::new(Choices::new(structures.clone()));
        sampler.admit(&init(SCHEMA, model.end, &[], greedy()));
        let mut tokens = Vec::new();
        while tokens.last() != Some(&model.end) && tokens.len() < 400 {
            tokens
                .push(sampler.sample(SlotId(0), &logits(model.pieces.len(), 7, tokens.len())).unwrap().unwrap().token);
        }
        answers.push(tokens);
        drop(sampler);
        known.push(compiled.bytes());
    }
    assert!(answers.iter().all(|tokens| *tokens == answers[0]));
    let unlearned = Structures::new(model_dir()).kept().get(&SCHEMA.into());
    unlearned.compile(&structures.shared).as_ref().unwrap();
    assert!(known[0] > unlearned.bytes(), "{known:?}");
    assert_eq!(known[1], known[2], "the same text again has nothing new");
}
