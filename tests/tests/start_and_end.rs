//! Tests of start and end: slow starts get time while they progress, and a second request ends a deployment at once.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use baton_tests::deployment::{command, signal, sum_of};
use baton_tests::http;
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

/// Process of `baton` whose output lines are kept.
struct Started {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Started {
    fn new(arguments: &[&str], caches: Option<&Path>) -> Result<Started> {
        let mut command = command()?;
        if let Some(caches) = caches {
            command.env("XDG_CACHE_HOME", caches);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Started::of(command)
    }

    fn of(mut command: Command) -> Result<Started> {
        let mut process = command.spawn()?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stdout, stderr) = (process.stdout.take().context("stdout")?, process.stderr.take().context("stderr")?);
        for output in [Box::new(stdout) as Box<dyn std::io::Read + Send>, Box::new(stderr)] {
            let kept = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        Ok(Started { process, lines })
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first line that contains `text`.
    fn line(&self, text: &str) -> Result<String> {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if let Some(line) = self.lines().into_iter().find(|line| line.contains(text)) {
                return Ok(line);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("no line with {text:?}:\n{}", self.lines().join("\n"))
    }

    fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("still running after {within:?}:\n{}", self.lines().join("\n"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = signal(self.process.id(), "TERM");
            std::thread::sleep(Duration::from_millis(500));
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// Returns all descendants of `parent`.
fn descendants(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children: Vec<u32> = pids.filter(|pid| parent_of(*pid) == Some(parent)).collect();
    children.iter().flat_map(|child| descendants(*child)).chain(children.iter().copied()).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then(|| fields.next()?.parse().ok())?
}

fn all_gone(pids: &[u32]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while pids.iter().any(|pid| parent_of(*pid).is_some()) {
        if Instant::now() > deadline {
            bail!("still there: {pids:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn run_directory_of(pid: u32) -> Option<PathBuf> {
    let prefix = format!("baton-{pid}-");
    let entries = std::fs::read_dir(std::env::temp_dir()).ok()?;
    entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).map(|entry| entry.path())
}

fn own_directory(name: &str) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("baton-test-start-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

const MODELLED: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--backend", "modelled"];

#[test]
fn a_start_that_takes_longer_than_it_may_stand_still_is_waited_for_and_told() -> Result<()> {
    let slow = ["--set", "decode.engine.modelled.load_ms=6000", "--set", "decode.start_stall_ms=3000"];
    let mut serve = Started::new(&[&MODELLED[..], &slow[..]].concat(), None)?;
    let ready = serve.line("router       ready  http://")?;
    assert!(ready.contains("model"), "{ready}");
    let loading = serve.lines().iter().filter(|line| line.starts_with("decode-0     loading")).count();
    assert!((1..=8).contains(&loading), "a line now and then: {:?}", serve.lines());
    signal(serve.process.id(), "INT")?;
    assert_eq!(serve.ended(SOON)?.code(), Some(0));
    Ok(())
}

#[test]
fn a_start_that_stands_still_fails_with_what_it_was_doing() -> Result<()> {
    let caches = own_directory("stall")?;
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--set", "prefill.start_stall_ms=2000"];
    let mut first = Started::new(&arguments, Some(&caches))?;
    first.line("router       ready")?;
    signal(first.process.id(), "INT")?;
    first.ended(SOON)?;
    // Another process holds the right to pack these weights and does nothing with it.
    let files = std::fs::read_dir(caches.join("baton"))?.flatten().map(|entry| entry.path());
    let packed = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "packed"));
    let packed = packed.context("no packed weights")?;
    std::fs::remove_file(&packed)?;
    let partial = std::fs::File::create(packed.with_extension("partial"))?;
    partial.lock()?;
    let mut second = Started::new(&arguments, Some(&caches))?;
    assert_eq!(second.ended(SOON)?.code(), Some(69), "{:?}", second.lines());
    let said = second.line("makes no progress")?;
    assert!(said.contains("prefill-0") && said.contains("prefill.start_stall_ms"), "{said}");
    assert!(said.contains("waiting for another process that packs the same weights"), "{said}");
    drop(partial);
    Ok(std::fs::remove_dir_all(&caches)?)
}

#[test]
fn ctrl_c_during_a_start_ends_everything_and_leaves_nothing() -> Result<()> {
    let slow = ["--set", "prefill.engine.modelled.load_ms=60000"];
    let mut serve = Started::new(&[&MODELLED[..], &slow[..]].concat(), None)?;
    serve.line("prefill-0    loading")?;
    let children = descendants(serve.process.id());
    assert!(!children.is_empty());
    signal(serve.process.id(), "INT")?;
    assert_eq!(serve.ended(Duration::from_secs(20))?.code(), Some(0), "{:?}", serve.lines());
    all_gone(&children)?;
    assert_eq!(run_directory_of(serve.process.id()), None);
    let complaints = serve.lines().into_iter().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<String>::new());

    let model = baton_tests::repository::root().join("models/demo");
    let mut worker = Started::new(
        &["prefill", "--set", "prefill.listen=127.0.0.1:0", "--set", "prefill.admin_listen=127.0.0.1:0"]
            .into_iter()
            .chain(["--set", "prefill.engine.backend=modelled", "--set", "prefill.engine.modelled.load_ms=60000"])
            .chain(["--set", &format!("prefill.engine.model_dir={}", model.display())])
            .collect::<Vec<_>>(),
        None,
    )?;
    worker.line("loading the modelled device")?;
    signal(worker.process.id(), "TERM")?;
    assert_eq!(worker.ended(Duration::from_secs(20))?.code(), Some(0), "{:?}", worker.lines());
    Ok(())
}

#[test]
fn a_closed_terminal_ends_everything_in_order_unless_it_was_started_to_outlive_it() -> Result<()> {
    let program = command()?.get_program().to_owned();
    let start = |by: &[&str]| {
        let mut command = Command::new(by[0]);
        command.args(&by[1..]).arg(&program).args(MODELLED);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Started::of(command)
    };
    // The test itself may have been started to outlive its terminal.
    let mut serve = start(&["env", "--default-signal=HUP"])?;
    serve.line("router       ready  http://")?;
    let children = descendants(serve.process.id());
    signal(serve.process.id(), "HUP")?;
    assert_eq!(serve.ended(SOON)?.code(), Some(0), "{:?}", serve.lines());
    all_gone(&children)?;
    assert_eq!(run_directory_of(serve.process.id()), None);

    let mut serve = start(&["nohup"])?;
    serve.line("router       ready  http://")?;
    signal(serve.process.id(), "HUP")?;
    std::thread::sleep(Duration::from_millis(500));
    assert!(serve.process.try_wait()?.is_none(), "{:?}", serve.lines());
    signal(serve.process.id(), "INT")?;
    assert_eq!(serve.ended(SOON)?.code(), Some(0), "{:?}", serve.lines());
    Ok(())
}

#[test]
fn a_second_ctrl_c_while_draining_ends_at_once_with_all_children() -> Result<()> {
    let patient = ["--set", "router.drain_ms=120000", "--set", "decode.engine.modelled.decode_step_us=200000"];
    let ranks = ["--set", "prefill.drain_ms=120000"];
    let mut serve = Started::new(&[&MODELLED[..], &patient[..], &ranks[..]].concat(), None)?;
    let ready = serve.line("router       ready  http://")?;
    let address =
        ready.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next()).context("no address")?;
    let body = json!({"prompt": "Hello", "max_tokens": 2000, "ignore_eos": true, "stream": true});
    let mut events = http::stream(address.parse()?, "/v1/completions", &body)?;
    events.next_data()?;
    let children = descendants(serve.process.id());
    signal(serve.process.id(), "INT")?;
    serve.line("once more ends at once")?;
    events.next_data()?.context("the answer goes on while it drains")?;
    assert!(serve.process.try_wait()?.is_none(), "it drains");
    let asked = Instant::now();
    signal(serve.process.id(), "INT")?;
    assert_eq!(serve.ended(Duration::from_secs(20))?.code(), Some(130), "{:?}", serve.lines());
    assert!(asked.elapsed() < Duration::from_secs(20));
    all_gone(&children)?;
    assert_eq!(run_directory_of(serve.process.id()), None);
    Ok(())
}

const DRAIN_MS: u64 = 120_000;

/// Returns an address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Starts one role with a drain longer than the test; `ready` is in the log line that tells its readiness.
fn role(role: &str, settings: &[String], ready: &str) -> Result<(Started, SocketAddr)> {
    let arguments = settings.iter().flat_map(|setting| ["--set".to_owned(), format!("{role}.{setting}")]);
    let arguments: Vec<String> = std::iter::once(role.to_owned()).chain(arguments).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let started = Started::new(&arguments, None)?;
    let line = started.line(ready)?;
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("address="));
    let address = address.with_context(|| format!("no address in {line}"))?.trim_matches('"').parse()?;
    Ok((started, address))
}

/// Tests each role by itself, with a request that cannot end soon, as its prefill takes a minute.
#[test]
fn a_second_ctrl_c_ends_each_single_role_at_once() -> Result<()> {
    let model = baton_tests::repository::root().join("models/demo");
    let (prefill_admin, decode_admin) = (free_address()?, free_address()?);
    let worker = |admin: SocketAddr| {
        vec![
            "listen=127.0.0.1:0".to_owned(),
            format!("admin_listen={admin}"),
            format!("drain_ms={DRAIN_MS}"),
            format!("engine.model_dir={:?}", model.display().to_string()),
            "engine.backend=modelled".to_owned(),
            "engine.modelled.prefill_step_us=60000000".to_owned(),
        ]
    };
    let (prefill, at_prefill) = role("prefill", &worker(prefill_admin), "ready address=")?;
    let peers = format!("peers=[\"{at_prefill}\"]");
    let (decode, at_decode) = role("decode", &[worker(decode_admin), vec![peers]].concat(), "ready address=")?;
    let settings = [
        format!("model_dir={:?}", model.display().to_string()),
        "listen=127.0.0.1:0".to_owned(),
        format!("drain_ms={DRAIN_MS}"),
        format!("workers.prefill=[\"{at_prefill}\"]"),
        format!("workers.decode=[\"{at_decode}\"]"),
    ];
    let (router, address) = role("router", &settings, "router listens address=")?;
    // The request fails when the router ends, and its result is ignored.
    let body = json!({"prompt": "Hello", "max_tokens": 5});
    std::thread::spawn(move || http::post(address, "/v1/completions", &body));
    for admin in [prefill_admin, decode_admin] {
        let deadline = Instant::now() + SOON;
        while sum_of(&http::get(admin, "/metrics")?.body, "baton_session_legs", &[]) != Some(1.0) {
            ensure!(Instant::now() < deadline, "the request does not arrive: {:?}", router.lines());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let mut roles = [router, prefill, decode];
    for role in &roles {
        signal(role.process.id(), "INT")?;
        role.line("once more ends at once")?;
    }
    for role in &mut roles {
        assert!(role.process.try_wait()?.is_none(), "it drains: {:?}", role.lines());
    }
    // None may run out of work because another has ended, so each finds the signal when it continues.
    for role in &roles {
        signal(role.process.id(), "STOP")?;
    }
    for role in &mut roles {
        signal(role.process.id(), "INT")?;
        signal(role.process.id(), "CONT")?;
        assert_eq!(role.ended(Duration::from_secs(20))?.code(), Some(130), "{:?}", role.lines());
    }
    Ok(())
}

#[test]
fn a_clean_start_and_end_say_little_and_complain_of_nothing() -> Result<()> {
    let mut serve = Started::new(&["serve", "--listen", "127.0.0.1:0"], None)?;
    let ready = serve.line("router       ready  http://")?;
    let address =
        ready.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next()).context("no address")?;
    serve.line("try: curl")?;
    let said: Vec<String> = serve.lines().iter().filter(|line| line.contains(" ready  ")).cloned().collect();
    let what: Vec<&str> = said.iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(what, ["prefill-0", "decode-0", "kv", "router"], "{said:?}");
    let body = json!({"prompt": "Hello", "max_tokens": 3});
    assert_eq!(http::post(address.parse()?, "/v1/completions", &body)?.status, 200);
    signal(serve.process.id(), "INT")?;
    assert_eq!(serve.ended(SOON)?.code(), Some(0));
    let lines = serve.lines();
    let complaints: Vec<&String> =
        lines.iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(!lines.iter().any(|line| line.contains("request ended")), "nobody asked for it: {lines:?}");
    let logged = lines.iter().filter(|line| line.contains(" INFO ")).count();
    assert!(logged <= 4, "internals are for debug: {lines:?}");
    Ok(())
}
