//! One role as a child process: started, observed until it is ready, stopped; knows no order between roles.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use node::telemetry::{COLOURS_VARIABLE, wants_colours};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child as Process, ChildStdin, Command};
use tokio::time::timeout;
use worker::started::{Report, Started};

use super::narrator::Narrator;
use super::relay;
use crate::ending::Ending;
use crate::key::KEY_VARIABLE;
use crate::plane::SECRET_VARIABLE;

const STOP_DEADLINE: Duration = Duration::from_secs(8);
/// Time to pass on the last lines of a child that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Parameters with which a role starts.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Name for people and metrics, e.g. `prefill-0`.
    pub name: String,
    /// Role of the child.
    pub role: WorkerRole,
    /// Path of its configuration file.
    pub config: PathBuf,
    /// Longest time between reports before the child is ready; its own watch has a shorter bound.
    pub silence_max: Duration,
}

/// Role of a child; its name is the subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerRole {
    /// `baton prefill`.
    Prefill,
    /// `baton decode`, also when it is aggregated.
    Decode,
}

impl WorkerRole {
    /// Returns the subcommand.
    #[must_use]
    pub const fn command(self) -> &'static str {
        match self {
            WorkerRole::Prefill => "prefill",
            WorkerRole::Decode => "decode",
        }
    }
}

/// Child that has reported that it is ready.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// Standard input of the child; while it is open the child knows that its supervisor lives.
    lifeline: Option<ChildStdin>,
    /// Process id.
    pub pid: u32,
    /// Report of the child when it was ready.
    pub started: Started,
}

/// Error: a child ended before it was ready.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended before it was ready ({status})")]
pub struct EndedEarly {
    /// Name of the child.
    pub name: String,
    /// Exit status; the reason is in the child's log lines on standard error.
    pub status: ExitStatus,
}

/// Error: the deployment was asked to end while the child started.
#[derive(Debug, thiserror::Error)]
#[error("{name} was stopped before it was ready")]
pub struct Interrupted {
    name: String,
}

impl Child {
    /// Starts the role and waits until it is ready, as long as it makes progress.
    pub async fn start(launch: &Launch, narrator: Narrator, ending: &Ending) -> Result<Child> {
        let own = std::env::current_exe().context("finding our own binary")?;
        let mut process = Command::new(own)
            .args([launch.role.command(), "--supervised", "--config"])
            .arg(&launch.config)
            // The child reads the secret from a file that its configuration names.
            .env_remove(SECRET_VARIABLE)
            .env_remove(KEY_VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env(COLOURS_VARIABLE, if wants_colours() { "1" } else { "0" })
            // Ctrl-C in a terminal reaches the supervisor only, which stops its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", launch.name))?;
        let lifeline = process.stdin.take();
        let stderr = process.stderr.take().context("a child without standard error")?;
        let relayed = tokio::spawn(relay::to_stderr(launch.name.clone(), stderr));
        let pid = process.id().context("a child that has just started has a process id")?;
        let ready = tokio::select! {
            ready = wait_ready(&mut process, launch, narrator) => ready,
            _ = ending.asked() => Err(Interrupted { name: launch.name.clone() }.into()),
        };
        match ready {
            Ok(started) => Ok(Child { process, lifeline, pid, started }),
            Err(error) => {
                stop(process, lifeline).await?;
                let _ = timeout(LAST_WORDS, relayed).await;
                Err(error)
            }
        }
    }

    /// Waits until the child ends by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.process.wait().await?)
    }

    /// Asks the child to stop by closing its standard input, then kills it.
    pub async fn stop(self) -> Result<()> {
        stop(self.process, self.lifeline).await
    }
}

async fn stop(mut process: Process, lifeline: Option<ChildStdin>) -> Result<()> {
    drop(lifeline);
    match timeout(STOP_DEADLINE, process.wait()).await {
        Ok(status) => status.map(|_| ()).context("waiting for a child"),
        Err(_) => process.kill().await.context("killing a child that did not stop"),
    }
}

async fn wait_ready(process: &mut Process, launch: &Launch, narrator: Narrator) -> Result<Started> {
    let stdout = process.stdout.take().context("a child without standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut last = "nothing".to_owned();
    loop {
        let line = timeout(launch.silence_max, lines.next_line()).await.with_context(|| {
            format!("{} has said nothing for {} s; the last was: {last}", launch.name, launch.silence_max.as_secs())
        })?;
        let Some(line) = line? else { break };
        match Report::from_line(&line) {
            Ok(Report::Loading(doing)) => {
                narrator.loading(&launch.name, &doing);
                last = doing;
            }
            Ok(Report::Ready(started)) => {
                // No more lines are expected, but a full pipe must not block the child.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(*started);
            }
            Err(_) => {}
        }
    }
    let status = process.wait().await?;
    Err(EndedEarly { name: launch.name.clone(), status }.into())
}
