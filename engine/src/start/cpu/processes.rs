//! Followers as processes: they inherit the segment and the pool and read their job from standard input, which stays
//! open as their lifeline. Knows no program: the caller says how a rank's process is started.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kernels::collective::Segment;
use kernels::memory::{HostMemory, bequeath};
use serde::{Deserialize, Serialize};

use super::crew::Crew;
use crate::backend::Notify;
use crate::model::{ModelSpec, WeightFiles};
use crate::start::geometry;
use crate::start::limits::{context_max, precision, segment_shape, step_limits};
use crate::{Config, EngineError, KvStore, Progress, TransportChoice};

/// A process whose lifeline was closed ends within this time, or is killed.
const STOP_MAX: Duration = Duration::from_secs(2);

/// Time between two progress reports of a rank.
const SAY_EVERY: Duration = Duration::from_millis(250);

/// Starts the process of a rank: a program that calls [`serve_rank`].
pub trait RankProgram: Send + Sync {
    /// The command with its arguments. Its standard input and output are the engine's; log lines go to standard error.
    fn command(&self) -> std::io::Result<Command>;
}

/// For callers that start no processes; `ranks = "processes"` is then an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRankProgram;

impl RankProgram for NoRankProgram {
    fn command(&self) -> std::io::Result<Command> {
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "this program cannot start processes for ranks"))
    }
}

/// Job of a rank's process, sent as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    rank: u32,
    /// File descriptors of the memory that the process inherits.
    segment: i32,
    pool: i32,
    /// [`Crew::weights_digest`] in hexadecimal digits.
    weights_digest: String,
    config: Config,
}

/// Processes of all followers; dropping this ends them.
pub(super) struct Processes {
    segment: Arc<Segment>,
    kept: Vec<Kept>,
}

struct Kept {
    rank: u32,
    child: Arc<Mutex<Child>>,
    /// While this end is open the process knows that its leader is alive.
    lifeline: Option<ChildStdin>,
    keeper: Option<JoinHandle<()>>,
}

/// Starts a process for every rank but the leader.
pub(super) fn start(
    crew: &Crew,
    kv: &KvStore,
    segment: &Arc<Segment>,
    program: &dyn RankProgram,
    notify: &Notify,
) -> Result<Processes, EngineError> {
    let no_host = || EngineError::ranks("the KV pool is not in memory that another process can map".to_owned());
    let memory = kv.region().host().ok_or_else(no_host)?;
    let mut started = Processes { segment: Arc::clone(segment), kept: Vec::new() };
    for rank in 1..crew.grid.ranks() {
        let problem = |error: std::io::Error| EngineError::ranks(format!("starting rank {rank}: {error}"));
        let mut command = program
            .command()
            .map_err(|error| EngineError::Config { key: "ranks", problem: format!("is \"processes\": {error}") })?;
        let job = Job {
            rank,
            segment: bequeath(&mut command, segment.memory()).map_err(problem)?,
            pool: bequeath(&mut command, memory).map_err(problem)?,
            weights_digest: format!("{:032x}", crew.weights_digest),
            // Ranks move no KV, and the transport within one process has no name in configurations.
            config: Config { transport: TransportChoice::Auto, ..crew.config.clone() },
        };
        // Ctrl-C in a terminal reaches the leader only, which ends its ranks in order.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(problem)?;
        started.keep(rank, child, &job, (notify, &crew.progress))?;
    }
    Ok(started)
}

impl Processes {
    /// Sends the process its job and watches it.
    fn keep(
        &mut self,
        rank: u32,
        mut child: Child,
        job: &Job,
        (notify, progress): (&Notify, &Progress),
    ) -> Result<(), EngineError> {
        let (mut lifeline, output) = (child.stdin.take(), child.stdout.take());
        let child = Arc::new(Mutex::new(child));
        let progress = progress.clone();
        let (segment, watched, notify) = (Arc::clone(&self.segment), Arc::clone(&child), Arc::clone(notify));
        let body = move || {
            // Each line is a tick of progress, whatever its text; a process that ends closes its output.
            let output = output.map(BufReader::new).into_iter();
            output.for_each(|output| output.split(b'\n').map_while(Result::ok).for_each(|_| progress.tick()));
            let ended = lock(&watched).wait();
            let said = ended.map_or_else(|error| error.to_string(), |status| format!("its process ended ({status})"));
            segment.declare_ended(rank as usize, &said);
            notify();
        };
        let keeper = std::thread::Builder::new().name(format!("keep-rank-{rank}")).spawn(body);
        let written = lifeline.as_mut().map_or(Ok(()), |lifeline| {
            let line = serde_json::to_string(job).map_err(std::io::Error::other)?;
            writeln!(lifeline, "{line}").and_then(|()| lifeline.flush())
        });
        let failed = |error: std::io::Error| EngineError::Thread { name: "keep-rank", reason: error.to_string() };
        let (keeper, result) = match keeper {
            Ok(keeper) => (Some(keeper), Ok(())),
            Err(error) => (None, Err(failed(error))),
        };
        self.kept.push(Kept { rank, child, lifeline, keeper });
        result?;
        written.map_err(|error| EngineError::ranks(format!("telling rank {rank} its job: {error}")))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // After a failed start there may be no leader that has closed the segment.
        self.segment.declare_ended(0, "the worker stops");
        for kept in &mut self.kept {
            kept.lifeline = None;
        }
        let deadline = Instant::now() + STOP_MAX;
        for kept in &mut self.kept {
            let Some(keeper) = kept.keeper.take() else { continue };
            while !keeper.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !keeper.is_finished() {
                tracing::warn!(rank = kept.rank, "a rank's process does not end, killing it");
                if let Err(error) = lock(&kept.child).kill() {
                    tracing::error!(rank = kept.rank, %error, "a rank's process cannot be killed");
                    continue;
                }
            }
            if keeper.join().is_err() {
                tracing::error!(rank = kept.rank, "the keeper of a rank's process panicked");
            }
        }
    }
}

/// Runs the whole life of a rank's process: reads its job from standard input, follows its leader and ends with it.
/// Does not return while the group exists.
pub fn serve_rank() -> Result<(), EngineError> {
    let mut line = String::new();
    let problem = |problem: String| EngineError::ranks(format!("the job of this rank: {problem}"));
    std::io::stdin().lock().read_line(&mut line).map_err(|error| problem(error.to_string()))?;
    let job: Job = serde_json::from_str(&line).map_err(|error| problem(error.to_string()))?;
    end_with_leader()?;
    let Job { rank, segment, pool, weights_digest, config } = job;
    let weights_digest = u128::from_str_radix(&weights_digest, 16).map_err(|error| problem(error.to_string()))?;
    let weights = WeightFiles::open(&config.model_dir)?;
    let spec = ModelSpec::read(&config.model_dir)?.as_stored(&weights)?;
    let precision = precision(&config);
    let geometry = geometry::of_model(&config, &spec, precision.of(spec.stored_dtype(&weights)?))?;
    let limits = step_limits(&config, context_max(&config, &spec)?);
    let inherited = |number, bytes| HostMemory::inherit(number, bytes).map_err(|error| problem(error.to_string()));
    let kv = KvStore::new(Arc::new(inherited(pool, geometry.pool_bytes())?), geometry)?;
    let grid = Crew::grid(&config, &spec)?;
    let progress = Progress::default();
    say_progress(progress.clone())?;
    let crew = Crew { config, spec, grid, precision, limits, weights_digest, progress };
    let shape = segment_shape(crew.grid, &crew.spec, limits, &geometry);
    let segment = Segment::open(inherited(segment, Segment::bytes(&shape)?)?, shape)?;
    drop(weights);
    crew.follow(rank, &segment, &kv)
}

/// Writes a line to standard output whenever this rank has made progress.
fn say_progress(progress: Progress) -> Result<(), EngineError> {
    let body = move || {
        let mut said = 0;
        loop {
            let ticks = progress.seen().ticks;
            // A failed write need not be reported: the leader that reads this ends us when it goes.
            if ticks != said && std::io::stdout().write_all(b"+\n").is_err() {
                return;
            }
            said = ticks;
            std::thread::sleep(SAY_EVERY);
        }
    };
    let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(body);
    thread.map(drop).map_err(|error| EngineError::Thread { name: "progress", reason: error.to_string() })
}

/// Ends this process when standard input closes: the leader is gone, for whatever reason.
fn end_with_leader() -> Result<(), EngineError> {
    let body = || {
        let mut rest = [0; 64];
        while matches!(std::io::stdin().lock().read(&mut rest), Ok(1..)) {}
        std::process::exit(0);
    };
    let thread = std::thread::Builder::new().name("lifeline".to_owned()).spawn(body);
    thread.map(drop).map_err(|error| EngineError::Thread { name: "lifeline", reason: error.to_string() })
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}
