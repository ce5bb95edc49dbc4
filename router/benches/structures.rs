//! What following a grammar costs, by kind: compiling it, and the mask of each token of texts that follow it.
//!
//! `VOCABULARY=FOLDER cargo bench -p router --bench structures`, where FOLDER has a tokenizer.json;
//! `gguf_vocabulary.py` makes one of 128,256 tokens. Without it: the bundled model's. Measured as workers do it: a matcher
//! takes the token and computes the mask of the next, and a text begins with what those before it have taught the lexer.
//! The documents are of the grammar's kind and made by chance.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to report")]

mod kinds;

use std::time::{Duration, Instant};

use router::text::{AddSpecials, Tokenizer};
use vocabulary::Grammars;

use kinds::Kind;

/// Times that each grammar is compiled.
const COMPILED: usize = 9;
/// Documents of each kind.
const DOCUMENTS: u64 = 6;

fn main() {
    let folder = std::env::var("VOCABULARY")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo").to_owned());
    let json = std::fs::read(format!("{folder}/tokenizer.json")).expect("the folder has a tokenizer.json");
    let tokenizer = Tokenizer::from_json(&json).expect("the tokenizer is supported");
    let begun = Instant::now();
    let grammars = Grammars::new(tokenizer.pieces()).expect("the vocabulary is supported");
    println!("vocabulary: {} tokens, prepared in {} ms\n", tokenizer.pieces().len(), begun.elapsed().as_millis());
    println!(
        "| kind | compiled in, p50 / max | mask p50 | p99 | max | tokens | p50 of the first document |\n|---|---|---|---|---|---|---|"
    );
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let mut all = Vec::new();
    for kind in kinds::all(&tokenizer) {
        if wanted.as_ref().is_none_or(|wanted| kind.name.contains(wanted.as_str())) {
            all.extend(measure(&kind, &grammars, &tokenizer));
        }
    }
    println!("| all | | {} | |", spread(all));
}

/// Prints the row of a kind; returns the times of its masks.
fn measure(kind: &Kind, grammars: &Grammars, tokenizer: &Tokenizer) -> Vec<Duration> {
    let mut compiled = Vec::new();
    for _ in 0..COMPILED {
        let begun = Instant::now();
        grammars.compile(&kind.grammar).unwrap_or_else(|error| fail(kind, &error.to_string()));
        compiled.push(begun.elapsed());
    }
    compiled.sort_unstable();
    let mut start = grammars.compile(&kind.grammar).unwrap_or_else(|error| fail(kind, &error.to_string()));
    let (mut masks, mut of_first) = (Vec::new(), 0);
    for seed in 0..DOCUMENTS {
        let document = (kind.document)(seed);
        let mut matcher = start.fresh();
        for token in tokenizer.encode(&document, AddSpecials::No).expect("the document can be encoded") {
            let begun = Instant::now();
            if let Err(error) = matcher.push(token) {
                fail(kind, &format!("{error} at {:?} of {document}", tokenizer.token_text(token)));
            }
            matcher.mask().unwrap_or_else(|error| fail(kind, &error.to_string()));
            masks.push(begun.elapsed());
        }
        if !matcher.mask().is_ok_and(|mask| mask.may_end()) {
            fail(kind, &format!("the document is not over: {document}"));
        }
        if seed == 0 {
            of_first = masks.len();
        }
        if matcher.knows_more_than(&start) {
            start = matcher.into_start();
        }
    }
    let [p50, .., max] = compiled[COMPILED / 2..] else { fail(kind, "it was not compiled") };
    let first = at(&mut masks[..of_first].to_vec(), 0.5);
    println!("| {} | {:.1} / {:.1} ms | {} | {first:.0} µs |", kind.name, ms(p50), ms(max), spread(masks.clone()));
    masks
}

fn spread(mut times: Vec<Duration>) -> String {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| at(&mut times, share));
    format!("{p50:.0} µs | {p99:.0} µs | {max:.0} µs | {}", times.len())
}

/// Microseconds below which this share of `times` is.
fn at(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn fail(kind: &Kind, problem: &str) -> ! {
    eprintln!("{}: {problem}", kind.name);
    std::process::exit(1);
}
