//! llama.cpp's own benchmark programs, one process per sample; knows nothing of ours.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::case::{Case, Phase};
use crate::options::Options;
use crate::rounds::Sample;

/// A longer sample is an error.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(900);
/// Prompt tokens per call of llama.cpp, its own default; it cuts them into chunks.
const LOGICAL_BATCH: &str = "2048";

pub(crate) struct LlamaCpp {
    bench: PathBuf,
    batched_bench: PathBuf,
    threads: String,
    chunk: String,
    steps: u32,
}

impl LlamaCpp {
    /// Finds it in the named directory, where it must be, or on the PATH, where it may be.
    pub(crate) fn find(options: &Options) -> Result<Option<LlamaCpp>> {
        let directory = match &options.llama_cpp {
            Some(named) => named.clone(),
            None => match on_path() {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        let program = |name: &str| {
            let path = directory.join(name);
            ensure!(path.is_file(), "{} does not exist", path.display());
            Ok(path)
        };
        Ok(Some(LlamaCpp {
            bench: program("llama-bench")?,
            batched_bench: program("llama-batched-bench")?,
            threads: options.threads.to_string(),
            chunk: options.chunk.to_string(),
            steps: options.steps,
        }))
    }

    /// Runs a case once. llama-bench times prompts, after its own warm-up; llama-batched-bench times decode steps,
    /// computing the context of one sequence and copying it to the others. Neither samples.
    pub(crate) fn sample(&self, case: &Case, model: &Path) -> Result<Sample> {
        let seconds = match case.phase {
            Phase::Prefill { tokens } => self.prefill_s(tokens, model),
            Phase::Decode { batch, context } => self.decode_s(batch, context, model),
        };
        let seconds = seconds.with_context(|| format!("llama.cpp, {}", case.name))?;
        Ok(Sample { tokens: case.tokens(self.steps), seconds })
    }

    fn prefill_s(&self, tokens: u32, model: &Path) -> Result<f64> {
        let mut command = Command::new(&self.bench);
        command.arg("-m").arg(model).args(["-n", "0", "-r", "1", "-o", "json", "-b", LOGICAL_BATCH]);
        command.args(["-p", &tokens.to_string(), "-ub", &self.chunk, "-t", &self.threads]);
        let printed = run(&mut command)?;
        let results: Value = serde_json::from_str(&printed).with_context(|| printed.clone())?;
        let nanoseconds =
            results[0]["samples_ns"][0].as_f64().with_context(|| format!("no samples_ns in {printed}"))?;
        Ok(nanoseconds / 1e9)
    }

    fn decode_s(&self, batch: u32, context: u32, model: &Path) -> Result<f64> {
        // A sequence has a multiple of 256 cells; one cell more than its tokens is needed to copy the context.
        let cells = batch * (context + self.steps + 1).next_multiple_of(256);
        let mut command = Command::new(&self.batched_bench);
        command.arg("-m").arg(model).args(["--output-format", "jsonl", "-pps", "-b", LOGICAL_BATCH]);
        command.args(["-c", &cells.to_string(), "-ub", &self.chunk, "-t", &self.threads, "-tb", &self.threads]);
        command.args(["-npp", &context.to_string(), "-ntg", &self.steps.to_string(), "-npl", &batch.to_string()]);
        let result = result_of(&mut command)?;
        result["t_tg"].as_f64().with_context(|| format!("no t_tg in {result}"))
    }
}

/// Line of JSON that the program prints. Its log thread sometimes loses the race with the end of the process, which
/// then has succeeded but printed nothing; such a run is repeated.
fn result_of(command: &mut Command) -> Result<Value> {
    const RUNS_MAX: usize = 3;
    for _ in 0..RUNS_MAX {
        let printed = run(command)?;
        if let Some(line) = printed.lines().find(|line| line.starts_with('{')) {
            return Ok(serde_json::from_str(line)?);
        }
    }
    bail!("{RUNS_MAX} runs have printed no result")
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|directory| directory.join("llama-batched-bench").is_file())
}

/// Output of a program, if it succeeded before the deadline.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.clone())?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = wait(&mut child).with_context(|| program.clone())?;
    let text = |reader: JoinHandle<String>| reader.join().unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    ensure!(status.success(), "{program} failed with {status}:\n{stderr}");
    Ok(stdout)
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // On an error, what was read before it is all there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus> {
    let deadline = Instant::now() + SAMPLE_DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("has not ended within {SAMPLE_DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
