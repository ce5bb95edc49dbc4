//! Model files of a shape, made if missing: safetensors for us, GGUF for llama.cpp.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::case::{Case, Weights};
use crate::generate::{self, Recipe};
use crate::gguf::{self, Format};
use crate::options::Options;

pub(crate) struct Models {
    /// Directory with `config.json` and `model.safetensors`, bf16.
    pub(crate) directory: PathBuf,
    bf16: PathBuf,
    q8: PathBuf,
}

impl Models {
    /// Makes missing files. A file gets its name only when it is complete.
    pub(crate) fn prepare(options: &Options, with_peer: bool) -> Result<Models> {
        let base = &options.directory;
        std::fs::create_dir_all(base).with_context(|| base.display().to_string())?;
        let name = &options.shape_name;
        let models = Models {
            directory: base.join(name),
            bf16: base.join(format!("{name}-BF16.gguf")),
            q8: base.join(format!("{name}-Q8_0.gguf")),
        };
        make_missing(&models.directory, |unfinished| {
            let recipe = Recipe { shape: options.shape, seed: 1, tokenizer: None };
            generate::write(unfinished, &recipe).map(|_| ())
        })?;
        if with_peer {
            for weights in [Weights::Bf16, Weights::Int8] {
                if options.cases.iter().any(|case| case.weights == weights) {
                    make_missing(models.gguf_of(weights), |unfinished| {
                        gguf::write(unfinished, &models.directory, options.shape, Format::of(weights))
                    })?;
                }
            }
        }
        Ok(models)
    }

    /// File with which llama.cpp runs a case.
    pub(crate) fn gguf(&self, case: &Case) -> &Path {
        self.gguf_of(case.weights)
    }

    fn gguf_of(&self, weights: Weights) -> &Path {
        match weights {
            Weights::Bf16 => &self.bf16,
            Weights::Int8 => &self.q8,
        }
    }
}

fn make_missing(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    println!("making {}", path.display());
    let unfinished = PathBuf::from(format!("{}.unfinished-{}", path.display(), std::process::id()));
    make(&unfinished)?;
    std::fs::rename(&unfinished, path).with_context(|| format!("{} to {}", unfinished.display(), path.display()))
}
