//! Command line: `key=value` words, each checked; knows no measurement.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use engine::{Config, TransportChoice};
use kernels::KernelSet;

use crate::case::{Case, Phase, Weights};
use crate::driver::BLOCK_TOKENS;
use crate::generate::Shape;

/// Bounds, so that a typing error does not run for days.
const ROUNDS_MAX: usize = 1000;
const STEPS_MAX: u32 = 1024;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) shape_name: String,
    pub(crate) shape: Shape,
    pub(crate) rounds: usize,
    /// Most repetitions of a sample in one round of one case; the steadiest counts.
    pub(crate) repeats: usize,
    pub(crate) threads: usize,
    pub(crate) cases: Vec<Case>,
    /// Rows of one prefill step, for both programs.
    pub(crate) chunk: u32,
    /// Decode steps of one sample.
    pub(crate) steps: u32,
    /// Directory of models and results.
    pub(crate) directory: PathBuf,
    pub(crate) json: Option<PathBuf>,
    /// A round that would probably end later than this after the start does not begin; the first always does.
    pub(crate) limit: Option<Duration>,
    pub(crate) llama_cpp: Option<PathBuf>,
    /// Keys of the engine's configuration, set last.
    pub(crate) engine: Vec<(String, serde_json::Value)>,
}

impl Options {
    /// Instruction level with which Baton computes.
    pub(crate) fn kernel_set(&self) -> Result<KernelSet> {
        let named = self.engine.iter().rev().find(|(key, _)| key == "kernel_set").and_then(|(_, value)| value.as_str());
        match named {
            None | Some("auto") => Ok(KernelSet::best()),
            Some(name) => Ok(name.parse()?),
        }
    }

    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Options> {
        let mut options = Options {
            shape_name: "1.1b".to_owned(),
            shape: Shape::named("1.1b")?,
            rounds: 5,
            repeats: 2,
            threads: std::thread::available_parallelism()?.get(),
            cases: Case::ALL.to_vec(),
            chunk: 512,
            steps: 32,
            directory: PathBuf::new(),
            json: None,
            limit: None,
            llama_cpp: std::env::var_os("LLAMA_CPP").map(PathBuf::from),
            engine: Vec::new(),
        };
        for argument in arguments {
            let (key, value) = argument.split_once('=').with_context(|| format!("{argument:?} is not key=value"))?;
            options.set(key, value).with_context(|| argument.clone())?;
        }
        if options.directory.as_os_str().is_empty() {
            options.directory = default_directory()?;
        }
        options.check()?;
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "shape" => (self.shape_name, self.shape) = (value.to_owned(), Shape::named(value)?),
            "rounds" => self.rounds = value.parse()?,
            "repeats" => self.repeats = value.parse()?,
            "threads" => self.threads = value.parse()?,
            "cases" => self.cases = value.split(',').map(Case::named).collect::<Result<_>>()?,
            "chunk" => self.chunk = value.parse()?,
            "steps" => self.steps = value.parse()?,
            "dir" => self.directory = value.into(),
            "json" => self.json = Some(value.into()),
            "limit_s" => self.limit = Some(Duration::from_secs(value.parse()?)),
            "llama_cpp" => self.llama_cpp = Some(value.into()),
            _ => match key.strip_prefix("engine.") {
                Some(name) => self.engine.push((name.to_owned(), parse_value(value))),
                None => bail!("unknown key {key:?}"),
            },
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        ensure!((1..=ROUNDS_MAX).contains(&self.rounds), "rounds must be 1 to {ROUNDS_MAX}, found {}", self.rounds);
        ensure!(self.repeats <= ROUNDS_MAX, "repeats must be at most {ROUNDS_MAX}, found {}", self.repeats);
        ensure!((1..=STEPS_MAX).contains(&self.steps), "steps must be 1 to {STEPS_MAX}, found {}", self.steps);
        ensure!(self.threads > 0, "threads must be at least 1");
        ensure!(self.chunk >= self.sequences(), "chunk must be at least the largest batch, {}", self.sequences());
        let positions = self.cases.iter().map(|case| self.positions(case)).max().unwrap_or(0);
        let most = self.shape.context as u32;
        ensure!(positions <= most, "a case needs {positions} positions, the shape has {most}");
        Ok(())
    }

    /// Positions that one sequence of a case needs.
    fn positions(&self, case: &Case) -> u32 {
        match case.phase {
            Phase::Prefill { tokens } => tokens,
            Phase::Decode { context, .. } => context + self.steps,
        }
    }

    fn sequences(&self) -> u32 {
        let batches = self.cases.iter().map(|case| match case.phase {
            Phase::Prefill { .. } => 1,
            Phase::Decode { batch, .. } => batch,
        });
        batches.max().unwrap_or(1)
    }

    /// Blocks that cases with these weights need.
    fn blocks(&self, weights: Weights) -> u32 {
        let cases = self.cases.iter().filter(|case| case.weights == weights);
        let tokens = cases.map(|case| match case.phase {
            Phase::Prefill { .. } => self.positions(case).next_multiple_of(BLOCK_TOKENS),
            Phase::Decode { batch, .. } => batch * self.positions(case).next_multiple_of(BLOCK_TOKENS),
        });
        tokens.max().unwrap_or(0).div_ceil(BLOCK_TOKENS).max(1)
    }

    /// Configuration of the engine for cases with these weights.
    pub(crate) fn config(&self, model_dir: &Path, weights: Weights) -> Result<Config> {
        let config = Config {
            model_dir: model_dir.to_path_buf(),
            kv_pool: engine::KvPool::Blocks(self.blocks(weights)),
            block_tokens: BLOCK_TOKENS,
            sequences_max: self.sequences(),
            step_tokens_max: self.chunk,
            cores: (0..self.threads).collect(),
            transport: TransportChoice::InProcess,
            weights_cache: self.directory.join("packed").display().to_string(),
            ..Config::default()
        };
        let mut keys = serde_json::to_value(config)?;
        keys["dtype"] = weights.dtype().into();
        for (key, value) in &self.engine {
            keys[key] = value.clone();
        }
        serde_json::from_value(keys).context("the engine's configuration")
    }
}

/// Parses numbers and lists as JSON; anything else is text.
fn parse_value(value: &str) -> serde_json::Value {
    serde_json::from_str(value).unwrap_or_else(|_| value.into())
}

/// `engine-bench` in the target directory of this program.
fn default_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    // target/<profile>/examples/compare: the target directory is three levels up.
    let target = program.ancestors().nth(3).context("no target directory above this program; say dir=DIR")?;
    Ok(target.join("engine-bench"))
}
