//! Tests that logging never blocks serving: whatever happens to output and error stream, requests are answered.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{binary, command, signal, sum_of};
use baton_tests::http;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// A `baton serve` whose output the test controls; stopped when dropped.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    fn start(mut command: Command, arrange: impl FnOnce(&mut Command)) -> Result<Served> {
        // Free a moment ago; nothing else on this machine asks for a particular port of this range.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        command.args(["serve", "--backend", "modelled", "--listen", &address.to_string()]).stdin(Stdio::null());
        arrange(&mut command);
        let served = Served { child: command.spawn()?, address };
        served.wait_until("it is ready", |served| Ok(http::get(served.address, "/ready")?.status == 200))?;
        Ok(served)
    }

    fn wait_until(&self, what: &str, met: impl Fn(&Served) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + SOON;
        while !met(self).unwrap_or(false) {
            ensure!(Instant::now() < deadline, "not within {SOON:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn ask(&self, count: usize) -> Result<()> {
        for _ in 0..count {
            let answer = http::post(self.address, "/v1/completions", &json!({"prompt": "Hello", "max_tokens": 1}))?;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        Ok(())
    }

    fn dropped(&self, labels: &[&str]) -> Result<f64> {
        let text = http::get(self.address, "/metrics")?.body;
        sum_of(&text, "baton_log_lines_dropped_total", labels).context("no such series")
    }

    fn end(mut self) -> Result<()> {
        signal(self.child.id(), "INT")?;
        let deadline = Instant::now() + SOON;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "Ctrl-C does not end it");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = signal(self.child.id(), "TERM");
            std::thread::sleep(Duration::from_millis(500));
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[test]
fn pipes_that_nobody_reads_hold_nothing_up_and_lost_lines_are_counted_and_told() -> Result<()> {
    let mut served = Served::start(command()?, |command| {
        // More lines than a pipe and the queue hold, from the router and from its workers.
        command.args(["--set", "telemetry.log=info,router=trace,proto=trace,h2=trace,hyper=trace,decode_server=trace"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    })?;
    served.ask(600)?;
    assert_eq!(http::get(served.address, "/ready")?.status, 200);
    served.wait_until("lines are dropped", |served| Ok(served.dropped(&["stream=\"stderr\""])? > 0.0))?;
    let stderr = served.child.stderr.take().context("no stderr")?;
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains("lines could not be written in time and were dropped") {
                let _ = tell.send(());
            }
        }
    });
    // Stopping now would leave half a second for a megabyte of lines before this one.
    told.recv_timeout(SOON).context("once it is read again, it says how many lines were lost")?;
    served.ask(3)?;
    served.end()?;
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    Ok(())
}

#[test]
fn closed_pipes_full_disks_and_closed_descriptors_hold_nothing_up() -> Result<()> {
    let full = || File::options().write(true).open("/dev/full");
    let served = Served::start(command()?, |command| {
        if let (Ok(out), Ok(err)) = (full(), full()) {
            command.stdout(out).stderr(err);
        }
    })?;
    served.ask(3)?;
    assert!(served.dropped(&["stream=\"stderr\""])? > 0.0 && served.dropped(&["stream=\"stdout\""])? > 0.0);
    served.end()?;

    let mut served = Served::start(command()?, |command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    })?;
    drop((served.child.stdout.take(), served.child.stderr.take()));
    served.ask(3)?;
    assert!(served.dropped(&["stream=\"stderr\""])? > 0.0);
    served.end()?;

    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" \"$@\" 1>&- 2>&-"]).arg(binary()?);
    let served = Served::start(closed, |_| {})?;
    served.ask(3)?;
    served.end()
}

#[test]
fn every_line_says_who_wrote_it_and_json_lines_are_json() -> Result<()> {
    let mut served = Served::start(command()?, |command| {
        command.args(["--set", "telemetry.format=json", "--set", "telemetry.log=debug"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    })?;
    let stderr = served.child.stderr.take().context("no stderr")?;
    let lines = std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).collect::<Vec<_>>());
    served.ask(1)?;
    served.end()?;
    let lines = lines.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    let mut writers = std::collections::BTreeSet::new();
    for line in &lines {
        let line: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        writers.insert(line["process"].as_str().context("no process")?.to_owned());
        ensure!(line["level"].is_string() && line["target"].is_string() && line["time"].is_string(), "{line}");
    }
    assert_eq!(writers.into_iter().collect::<Vec<_>>(), ["decode-0", "prefill-0", "router"]);
    Ok(())
}
