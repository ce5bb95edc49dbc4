//! Weights mapped from the shared file of a host give the same bits as weights packed for one process.

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use engine::{Config, WeightsDtype};
use sched::SamplingParams;

use support::family;
use support::requests::{request, tokens};
use support::workers::{self, Texts, Workers};

/// A directory of packed weights, removed on drop.
struct Cache(PathBuf);

impl Cache {
    fn new(name: &str) -> Cache {
        Cache(std::env::temp_dir().join(format!("baton-shared-weights-{}-{name}", std::process::id())))
    }

    fn config(&self, model: &str, dtype: WeightsDtype) -> Config {
        let weights_cache = self.0.display().to_string();
        Config { weights_cache, dtype, ..workers::config(&family(model)) }
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.0)?.map(|entry| Ok(entry?.path()));
        let mut files = entries.collect::<Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }

    fn only_file(&self) -> Result<PathBuf> {
        let mut files = self.files()?;
        ensure!(files.len() == 1, "{files:?}");
        files.pop().context("no file")
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _left_for_the_system = std::fs::remove_dir_all(&self.0);
    }
}

/// Tokens and log-probabilities of two prompts.
fn texts(config: &Config) -> Result<Texts> {
    let params = SamplingParams { logprobs: Some(2), ..SamplingParams::default() };
    let requests = [(1, 30), (2, 7)].map(|(id, length)| request(id, tokens(id, length, 384), 2, params.clone()));
    Workers::aggregated(config)?.run(&requests)
}

/// Number of mappings of a file in this process.
fn mappings(file: &Path) -> Result<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let name = file.display().to_string();
    Ok(maps.lines().filter(|line| line.ends_with(&name) && line.contains("r--s")).count())
}

#[test]
fn mapped_weights_give_the_bits_of_packed_ones() -> Result<()> {
    for (model, dtype) in [
        ("llama", WeightsDtype::Auto),
        ("llama", WeightsDtype::Bf16),
        ("llama-bf16", WeightsDtype::Auto),
        ("llama-bf16", WeightsDtype::F32),
        ("llama-f16", WeightsDtype::Auto),
        ("qwen2", WeightsDtype::Auto),
        ("qwen3", WeightsDtype::Bf16),
    ] {
        let cache = Cache::new(&format!("{model}-{dtype:?}"));
        let config = cache.config(model, dtype);
        let expected = texts(&Config { weights_cache: "off".to_owned(), ..config.clone() })?;
        assert_eq!(texts(&config)?, expected, "{model} {dtype:?}, just packed");
        let file = cache.only_file()?;
        let inode = std::fs::metadata(&file)?.ino();
        assert_eq!(texts(&config)?, expected, "{model} {dtype:?}, found packed");
        assert_eq!(std::fs::metadata(&file)?.ino(), inode, "it is not packed again");
    }
    Ok(())
}

#[test]
fn two_workers_of_a_host_map_one_file() -> Result<()> {
    let cache = Cache::new("two");
    let config = cache.config("llama-bf16", WeightsDtype::Auto);
    let mut workers = Workers::disaggregated(&config, &config)?;
    assert_eq!(mappings(&cache.only_file()?)?, 2);
    let prompt = request(1, tokens(1, 20, 384), 4, SamplingParams::default());
    assert_eq!(workers.run(&[prompt])?.len(), 4, "every choice has a text");
    drop(workers);
    Ok(())
}

#[test]
fn other_formats_are_other_files() -> Result<()> {
    let cache = Cache::new("formats");
    for dtype in [WeightsDtype::Auto, WeightsDtype::F32, WeightsDtype::Bf16] {
        texts(&cache.config("llama-bf16", dtype))?;
    }
    assert_eq!(cache.files()?.len(), 3);
    Ok(())
}

#[test]
fn every_rank_has_a_file_of_its_own() -> Result<()> {
    let cache = Cache::new("ranks");
    let config = cache.config("llama-bf16", WeightsDtype::Auto);
    let expected = texts(&Config { weights_cache: "off".to_owned(), ..config.clone() })?;
    let ranks = Config { tp: 2, pp: 2, ..config };
    assert_eq!(texts(&ranks)?, expected, "just packed");
    assert_eq!(cache.files()?.len(), 4);
    assert_eq!(texts(&ranks)?, expected, "found packed");
    assert_eq!(cache.files()?.len(), 4);
    Ok(())
}
