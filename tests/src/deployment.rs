//! `baton serve` as a real process: started on free ports, observed, killed at the end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{http, repository};

const READY_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// Returns the `baton` binary of the tests' own profile, built once per test process.
pub fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// Returns a command that starts `baton`. Its caches lie beside the binary, not in the user's cache directory.
pub fn command() -> Result<Command> {
    let binary = binary()?;
    let mut command = Command::new(&binary);
    command.env("XDG_CACHE_HOME", binary.with_file_name("test-caches"));
    Ok(command)
}

fn build() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/<profile>/deps/<test>: the binary lies two directories up.
    let profile_dir = test.parent().and_then(|deps| deps.parent()).context("where is this test?")?;
    let release = profile_dir.file_name().is_some_and(|name| name == "release");
    let target_dir = profile_dir.parent().context("where is the target directory?")?;
    let mut cargo = Command::new(env!("CARGO"));
    // A test target selects the features of `cargo test --workspace`, so that nothing is compiled twice.
    cargo
        .args(["build", "--offline", "--workspace", "--bin", "baton", "--test", "rules"])
        .current_dir(repository::root())
        .env("CARGO_TARGET_DIR", target_dir);
    // `cargo test` describes the test's crate in these variables, and ring's build script says that it depends on them:
    // with them, this build would compile anew whatever uses TLS, and the next one without them would do so again.
    let described = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(described)) {
        cargo.env_remove(name);
    }
    if release {
        cargo.arg("--release");
    }
    let output = cargo.output().context("cargo build")?;
    ensure!(output.status.success(), "building baton failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(profile_dir.join("baton"))
}

/// Running `baton serve`.
#[derive(Debug)]
pub struct Deployment {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Address of its router.
    pub address: SocketAddr,
}

impl Deployment {
    /// Starts `baton serve --listen 127.0.0.1:0 <arguments>` and waits until the router is ready.
    pub fn start(arguments: &[&str]) -> Result<Deployment> {
        Deployment::start_with(arguments, &[])
    }

    /// Does the same with further environment variables.
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Deployment> {
        let mut child = command()?
            .envs(environment.iter().copied())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting baton serve")?;
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, ready) = channel();
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| lines.send(l))
        });
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                keep(&kept, &line);
            }
        });
        match wait_ready(&ready, &log) {
            Ok(address) => {
                let kept = Arc::clone(&log);
                std::thread::spawn(move || ready.iter().for_each(|line| keep(&kept, &line)));
                Ok(Deployment { child, log, address })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                Err(error.context(format!("baton serve {arguments:?} did not become ready; its output:\n{log}")))
            }
        }
    }

    /// Returns the process id of `baton serve` itself, which is the router and the supervisor.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns everything printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the last process id that `serve` printed for a child role, e.g. `decode`.
    pub fn child_pid(&self, role: &str) -> Result<u32> {
        let log = self.log();
        let line = log.lines().rev().find(|line| line.starts_with(role) && line.contains(" pid "));
        let line = line.with_context(|| format!("no ready line of {role} in:\n{log}"))?;
        let mut words = line.split_whitespace().skip_while(|word| *word != "pid");
        words.nth(1).and_then(|pid| pid.parse().ok()).with_context(|| format!("no pid in {line:?}"))
    }

    /// Sums a metric's series whose labels contain all of `labels`, over router and workers; without such a series an
    /// error, so that a misspelt name does not count as zero.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = http::get(self.address, "/metrics")?.body;
        sum_of(&text, name, labels).with_context(|| format!("no series {name} with {labels:?}"))
    }

    /// Polls until `met` holds, for at most `within`.
    pub fn wait_until(
        &self,
        what: &str,
        within: Duration,
        mut met: impl FnMut(&Deployment) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            // A router that has just lost its workers may fail a scrape; only the end decides.
            let state = met(self);
            if let Ok(true) = state {
                return Ok(());
            }
            if Instant::now() > deadline {
                let metrics = http::get(self.address, "/metrics").map(|a| a.body).unwrap_or_default();
                bail!("not within {within:?}: {what} ({state:?})\n{}\nmetrics:\n{metrics}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until no request, sequence or block is in use any more.
    pub fn wait_until_idle(&self) -> Result<()> {
        self.wait_until("gauges back to zero", IDLE_DEADLINE, |deployment| {
            let busy = deployment.metric("baton_kv_blocks", &["state=\"in_use\""])?
                + deployment.metric("baton_kv_blocks", &["state=\"quarantined\""])?
                + deployment.metric("baton_running_sequences", &[])?
                + deployment.metric("baton_waiting_legs", &[])?
                + deployment.metric("baton_held_legs", &[])?
                + deployment.metric("baton_requests_in_flight", &[])?;
            Ok(busy == 0.0 && deployment.metric("baton_kv_blocks", &["state=\"free\""])? > 0.0)
        })
    }

    /// Sends Ctrl-C and waits for the end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        signal(self.child.id(), "INT")?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("still running {STOP_DEADLINE:?} after Ctrl-C:\n{}", self.log())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGTERM lets the supervisor stop its children; SIGKILL is for a supervisor that hangs.
            let _ = signal(self.child.id(), "TERM");
            std::thread::sleep(Duration::from_millis(500));
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().context("kill")?;
    ensure!(status.success(), "kill -{name} {pid} failed");
    Ok(())
}

/// Sums a metric's series whose labels contain all of `labels` in a Prometheus text; `None` without any.
#[must_use]
pub fn sum_of(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let series = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|l| line.contains(l))
    });
    let values: Vec<f64> = series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn wait_ready(lines: &Receiver<String>, log: &Mutex<String>) -> Result<SocketAddr> {
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                keep(log, &line);
                if let Some(url) = line.strip_prefix("router").and_then(|rest| rest.split("://").nth(1)) {
                    let address = url.split_whitespace().next().unwrap_or(url);
                    return address.parse().with_context(|| format!("router address in {line:?}"));
                }
            }
            Err(RecvTimeoutError::Timeout) => bail!("not ready within {READY_DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended"),
        }
    }
}

fn keep(log: &Mutex<String>, line: &str) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.push_str(line);
    log.push('\n');
}
