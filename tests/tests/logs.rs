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

/// Under `serve`, requests have no lines of their own unless one asks for them.
const EACH_REQUEST: [&str; 2] = ["--set", "telemetry.request_log=on"];

#[test]
fn closed_pipes_full_disks_and_closed_descriptors_hold_nothing_up() -> Result<()> {
    let full = || File::options().write(true).open("/dev/full");
    let served = Served::start(command()?, |command| {
        command.args(EACH_REQUEST);
        if let (Ok(out), Ok(err)) = (full(), full()) {
            command.stdout(out).stderr(err);
        }
    })?;
    served.ask(3)?;
    assert!(served.dropped(&["stream=\"stderr\""])? > 0.0 && served.dropped(&["stream=\"stdout\""])? > 0.0);
    served.end()?;

    let mut served = Served::start(command()?, |command| {
        command.args(EACH_REQUEST).stdout(Stdio::piped()).stderr(Stdio::piped());
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
        command.args(["--set", "telemetry.request_log=on"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    })?;
    let stderr = served.child.stderr.take().context("no stderr")?;
    let lines = std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).collect::<Vec<_>>());
    served.ask(1)?;
    served.end()?;
    let lines = lines.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    let (mut writers, mut requests) = (std::collections::BTreeSet::new(), 0);
    for line in &lines {
        let line: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        writers.insert(line["process"].as_str().context("no process")?.to_owned());
        ensure!(line["level"].is_string() && line["target"].is_string() && line["time"].is_string(), "{line}");
        if line["target"] == "request" && line["level"] == "INFO" {
            requests += 1;
            let parts = ["parse_us", "admission_us", "queue_us", "prefill_us", "relay_us"];
            let sum: u64 = parts.iter().filter_map(|part| line[part].as_u64()).sum();
            ensure!(line["process"] == "router" && line["ttft_us"] == sum && sum > 0, "{line}");
        }
    }
    assert_eq!(writers.into_iter().collect::<Vec<_>>(), ["decode-0", "prefill-0", "router"]);
    assert_eq!(requests, 1, "a line per request");
    Ok(())
}

/// Prompts, answers and keys belong to clients, and logs are read by others.
#[test]
fn no_line_shows_a_prompt_or_a_key_and_no_worker_gets_the_key() -> Result<()> {
    const KEY: &str = "sk-canary-of-the-keys-0123456789";
    const WORDS: &str = "canary-of-the-prompts";
    let mut served = Served::start(command()?, |command| {
        command.args(["--set", "telemetry.log=debug"]).args(EACH_REQUEST).env("BATON_API_KEY", KEY);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    })?;
    let stderr = served.child.stderr.take().context("no stderr")?;
    let lines = std::thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).collect::<Vec<_>>());
    assert_eq!(http::post(served.address, "/v1/completions", &json!({"prompt": WORDS}))?.status, 401);
    let target = format!("http://{}", served.address);
    let ask = |key: &str| {
        let arguments = ["chat", "--target", &target, "--max-tokens", "8", WORDS];
        command()?.args(arguments).env("OPENAI_API_KEY", key).stdin(Stdio::null()).output().context("baton chat")
    };
    let answered = ask(KEY)?;
    ensure!(answered.status.success(), "{}", String::from_utf8_lossy(&answered.stderr));
    let refused = ask("sk-canary-that-is-wrong")?;
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("Incorrect API key provided."), "{refused:?}");
    for worker in workers_of(served.child.id())? {
        for file in ["environ", "cmdline"] {
            let text = std::fs::read(format!("/proc/{worker}/{file}"))?;
            ensure!(!String::from_utf8_lossy(&text).contains("canary"), "{file} of a worker has the key");
        }
    }
    served.end()?;
    let lines = lines.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    ensure!(lines.iter().any(|line| line.contains("request ended") && line.contains("api-key-1")), "{lines:#?}");
    let telling: Vec<&String> = lines.iter().filter(|line| line.contains("canary")).collect();
    ensure!(telling.is_empty(), "{telling:#?}");
    Ok(())
}

/// Returns the processes that a process has started, from whichever thread.
fn workers_of(parent: u32) -> Result<Vec<String>> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task"))?;
    let children = tasks.map(|task| Ok(std::fs::read_to_string(task?.path().join("children"))?));
    let all = children.collect::<Result<Vec<String>>>()?.join(" ");
    let workers: Vec<String> = all.split_whitespace().map(str::to_owned).collect();
    ensure!(workers.len() == 2, "not a prefill and a decode worker: {all:?}");
    Ok(workers)
}
