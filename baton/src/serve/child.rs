//! One role as a child process: started, heard out until it is ready, stopped; knows no order between roles.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use node::started::Started;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child as Process, ChildStdin, Command};
use tokio::time::timeout;

const READY_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(8);

/// How to start a role.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Name for people and metrics, e.g. `prefill-0`.
    pub name: String,
    /// What it does.
    pub role: WorkerRole,
    /// Its configuration file.
    pub config: PathBuf,
}

/// What a child does; its name is the subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerRole {
    /// `baton prefill`.
    Prefill,
    /// `baton decode`, also when it is aggregated.
    Decode,
}

impl WorkerRole {
    /// The subcommand.
    #[must_use]
    pub const fn command(self) -> &'static str {
        match self {
            WorkerRole::Prefill => "prefill",
            WorkerRole::Decode => "decode",
        }
    }
}

/// A role that has announced itself.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// While this end is open the child knows that its supervisor lives.
    lifeline: Option<ChildStdin>,
    /// Its process id.
    pub pid: u32,
    /// What it said when it was ready.
    pub started: Started,
}

/// A role ended before it was ready.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended before it was ready ({status})")]
pub struct EndedEarly {
    /// Which.
    pub name: String,
    /// How; the reason is in its own log lines, which went to standard error.
    pub status: ExitStatus,
}

impl Child {
    /// Starts the role and waits until it is ready.
    pub async fn start(launch: &Launch) -> Result<Child> {
        let own = std::env::current_exe().context("finding our own binary")?;
        let mut process = Command::new(own)
            .args([launch.role.command(), "--supervised", "--config"])
            .arg(&launch.config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal reaches the supervisor only; it stops its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", launch.name))?;
        let lifeline = process.stdin.take();
        let pid = process.id().context("a child that has just started has a process id")?;
        match timeout(READY_DEADLINE, wait_ready(&mut process, &launch.name)).await {
            Ok(started) => Ok(Child { process, lifeline, pid, started: started? }),
            Err(_) => anyhow::bail!("{} was not ready within {READY_DEADLINE:?}", launch.name),
        }
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.process.wait().await?)
    }

    /// Asks it to stop by closing its lifeline, then insists.
    pub async fn stop(mut self) -> Result<()> {
        self.lifeline = None;
        match timeout(STOP_DEADLINE, self.process.wait()).await {
            Ok(status) => status.map(|_| ()).context("waiting for a child"),
            Err(_) => self.process.kill().await.context("killing a child that did not stop"),
        }
    }
}

async fn wait_ready(process: &mut Process, name: &str) -> Result<Started> {
    let stdout = process.stdout.take().context("a child without standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Ok(started) = Started::from_line(&line) {
            // Nothing more is expected there, but a full pipe must never block the child.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(started);
        }
    }
    let status = process.wait().await?;
    Err(EndedEarly { name: name.to_string(), status }.into())
}
