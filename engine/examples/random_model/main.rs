//! Writes a model directory with random weights, for timing: a real shape whose answers are noise.
//!
//! usage: random_model DIR [shape=134m|1.1b] [tokenizer=DIR] [seed=N] [hidden=N layers=N heads=N kv_heads=N mlp=N vocab=N context=N]

mod generate;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use generate::{Recipe, Shape};

fn main() -> Result<()> {
    let (directory, recipe) = parse(std::env::args().skip(1))?;
    let bytes = generate::write(&directory, &recipe)?;
    println!("{}: {:.1} M parameters, {bytes} bytes of bf16", directory.display(), bytes as f64 / 2e6);
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(PathBuf, Recipe)> {
    let Some(directory) = arguments.next().filter(|first| !first.contains('=')) else {
        bail!("usage: random_model DIR [shape=134m|1.1b] [tokenizer=DIR] [seed=N] [hidden=N layers=N ...]");
    };
    let mut recipe = Recipe { shape: Shape::named("134m")?, seed: 1, tokenizer: None };
    for argument in arguments {
        let (key, value) = argument.split_once('=').with_context(|| format!("{argument:?} is not key=value"))?;
        set(&mut recipe, key, value)?;
    }
    Ok((directory.into(), recipe))
}

fn set(recipe: &mut Recipe, key: &str, value: &str) -> Result<()> {
    let number = || value.parse::<usize>().with_context(|| format!("{key}={value:?} is not a number"));
    let shape = &mut recipe.shape;
    match key {
        "shape" => *shape = Shape::named(value)?,
        "tokenizer" => recipe.tokenizer = Some(value.into()),
        "seed" => recipe.seed = number()? as u64,
        "hidden" => shape.hidden = number()?,
        "layers" => shape.layers = number()?,
        "heads" => shape.heads = number()?,
        "kv_heads" => shape.kv_heads = number()?,
        "mlp" => shape.mlp = number()?,
        "vocab" => shape.vocab = number()?,
        "context" => shape.context = number()?,
        other => bail!("unknown key {other:?}"),
    }
    Ok(())
}
