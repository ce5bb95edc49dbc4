//! Quality cost of number formats: perplexity and KL divergence over a text, through the engine that serves.
//!
//! usage: quality [DIR] [TEXT] [window=512] [pairs=f32/f32,bf16/bf16,int8/bf16,bf16/int8,int8/int8] [engine.KEY=VALUE]…
//!
//! DIR is the model, by default the bundled one; TEXT a file, by default the bundled model's held-out text; a pair
//! names weights and KV (`engine.dtype` / `engine.kv_dtype`). The text is cut where documents begin, at the model's
//! beginning-of-text token, and after `window` tokens. Every position is predicted from the text before it, not from
//! the model's own output. Divergence is from the first pair and from `bf16/bf16`.

mod divergence;
mod scorer;
mod text;

#[path = "../shared/driver.rs"]
mod driver;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use divergence::Tally;
use scorer::{Prediction, Scorer};

/// The pair that quantised pairs are compared with.
const BASE: &str = "bf16/bf16";
/// Bounds of a window: it needs a token to predict, and its rows are one step.
const WINDOW: std::ops::RangeInclusive<usize> = 2..=4096;

struct Options {
    model: PathBuf,
    text: PathBuf,
    window: usize,
    pairs: Vec<String>,
    engine: Vec<(String, Value)>,
}

fn main() -> Result<()> {
    let options = parse(std::env::args().skip(1))?;
    let windows = text::windows(&options.model, &options.text, options.window)?;
    let predicted: usize = windows.iter().map(|window| window.len() - 1).sum();
    println!("{}: {} windows, {predicted} tokens to predict\n", options.text.display(), windows.len());
    let first = options.pairs.first().context("no pairs")?.clone();
    println!(
        "| weights/KV | perplexity | against {BASE} | KL from {first}, nats | KL from {BASE}, nats | same likeliest token as {BASE} |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    // Predictions of the first pair and of the base, kept for the comparison with the others.
    let (mut from_first, mut from_base) = (None, None);
    for pair in &options.pairs {
        let predictions = match predictions(&options, pair, &windows) {
            Ok(predictions) => predictions,
            Err(error) => {
                println!("| {pair} | {error:#} | | | | |");
                continue;
            }
        };
        println!("{}", line(pair, &predictions, from_first.as_deref(), from_base.as_deref()));
        if *pair == BASE {
            from_base = Some(predictions.clone());
        }
        from_first.get_or_insert(predictions);
    }
    Ok(())
}

fn predictions(options: &Options, pair: &str, windows: &[Vec<u32>]) -> Result<Vec<Prediction>> {
    let mut scorer = Scorer::open(&options.model, pair, options.window, &options.engine)?;
    let mut all = Vec::new();
    for window in windows {
        all.extend(scorer.predict(window)?);
    }
    Ok(all)
}

fn line(pair: &str, own: &[Prediction], first: Option<&[Prediction]>, base: Option<&[Prediction]>) -> String {
    let tally = Tally::of(own, own);
    let (first, base) = (first.map(|other| Tally::of(other, own)), base.map(|other| Tally::of(other, own)));
    let change = base.as_ref().map_or_else(String::new, |base| {
        format!("{:+.3} %", 100.0 * (tally.perplexity / base.reference_perplexity - 1.0))
    });
    let kl = |tally: &Option<Tally>| {
        tally.as_ref().map_or_else(String::new, |tally| format!("{:.6} (largest {:.3})", tally.kl_mean, tally.kl_max))
    };
    let agreement = base.as_ref().map_or_else(String::new, |base| format!("{:.2} %", 100.0 * base.same_likeliest));
    format!("| {pair} | {:.4} | {change} | {} | {} | {agreement} |", tally.perplexity, kl(&first), kl(&base))
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let bundled = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let mut options = Options {
        text: bundled.join("recipe/held_out.txt"),
        model: bundled,
        window: 512,
        pairs: ["f32/f32", BASE, "int8/bf16", "bf16/int8", "int8/int8"].map(str::to_owned).to_vec(),
        engine: Vec::new(),
    };
    let (keys, paths): (Vec<String>, Vec<String>) = arguments.partition(|argument| argument.contains('='));
    match paths.as_slice() {
        [] => {}
        [model] => options.model = model.into(),
        [model, text] => (options.model, options.text) = (model.into(), text.into()),
        more => bail!("at most a model and a text, found {more:?}"),
    }
    for argument in &keys {
        let (key, value) = argument.split_once('=').with_context(|| format!("{argument:?} is not key=value"))?;
        match (key, key.strip_prefix("engine.")) {
            ("window", _) => options.window = value.parse().with_context(|| argument.clone())?,
            ("pairs", _) => options.pairs = value.split(',').map(str::to_owned).collect(),
            (_, Some(name)) => {
                let parsed = serde_json::from_str(value).unwrap_or_else(|_| value.into());
                options.engine.push((name.to_owned(), parsed));
            }
            (other, None) => bail!("unknown key {other:?}"),
        }
    }
    ensure!(WINDOW.contains(&options.window), "window must lie in {WINDOW:?}, found {}", options.window);
    Ok(options)
}
