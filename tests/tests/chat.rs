//! Tests of `baton chat`: questions by argument, by pipe and in a terminal; readers that have seen enough.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton_tests::deployment::{Deployment, command};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

fn chat(arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = command()?;
    command.arg("chat").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    Ok(child.wait_with_output()?)
}

#[test]
fn questions_come_by_argument_and_by_pipe() -> Result<()> {
    let deployment = Deployment::start(&[])?;
    let target = format!("http://{}/v1", deployment.address);
    let greedy = ["--target", target.as_str(), "--temperature", "0", "--max-tokens", "12"];
    let by_argument = chat(&[&greedy[..], &["Hello!", "Who are you?"]].concat(), "")?;
    let by_pipe = chat(&greedy, "Hello! Who are you?\n")?;
    for output in [&by_argument, &by_pipe] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.starts_with("TTFT ") && said.contains(" · TPOT "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(by_argument.stdout, by_pipe.stdout, "the same question, the same answer");
    assert!(by_pipe.stdout.len() > 10 && by_pipe.stdout.ends_with(b"\n"));
    let both = chat(&[&greedy[..], &["Sum this up:"]].concat(), "A long text.")?;
    assert_eq!(both.status.code(), Some(0));

    let nothing = chat(&greedy, "  \n")?;
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing was asked"));
    let odd = chat(&[&greedy[..4], &["--model", "no-such-model", "Hello"]].concat(), "")?;
    assert_eq!(odd.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&odd.stderr).contains("no-such-model"));
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_answer_quietly() -> Result<()> {
    let deployment = Deployment::start(&["--backend", "modelled"])?;
    let address = deployment.address.to_string();
    let mut child = command()?
        .args(["chat", "--target", &address, "--max-tokens", "2000", "Tell me everything."])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut first = [0; 4];
    child.stdout.take().context("no stdout")?.read_exact(&mut first)?;
    let output = child.wait_with_output()?;
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    deployment.wait_until("the request has ended, too", Duration::from_secs(30), |deployment| {
        Ok(deployment.metric("baton_requests_in_flight", &[])? == 0.0)
    })
}

/// Types each of `lines` at a prompt of a conversation in a terminal, without a server; returns the exit status.
fn typed(lines: &[&str], state: &Path) -> Result<ExitStatus> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let inside = ptsname(&terminal, Vec::new())?.into_string()?;
    let inside = File::options().read(true).write(true).open(inside)?;
    let mut child = command()?
        .args(["chat", "--target", "127.0.0.1:1", "--model", "nobody"])
        .env("XDG_STATE_HOME", state)
        .env("TERM", "xterm")
        .stdin(inside.try_clone()?)
        .stdout(inside)
        .stderr(Stdio::null())
        .spawn()?;
    let mut screen = File::from(terminal);
    for keys in lines {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("> ") {
            let mut some = [0; 256];
            let bytes = screen.read(&mut some)?;
            seen.extend_from_slice(&some[..bytes]);
        }
        screen.write_all(keys.as_bytes())?;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    bail!("it did not end after {lines:?}")
}

#[test]
fn lines_are_edited_and_remembered() -> Result<()> {
    let state = std::env::temp_dir().join(format!("baton-chat-{}", std::process::id()));
    // Ctrl-A and Ctrl-K clear the line, Ctrl-C discards another; then a command with a letter inserted later.
    let status = typed(&["/nonsense\x01\x0b/what\x03", "/be\x1b[Dy\r"], &state)?;
    assert_eq!(status.code(), Some(0));
    let status = typed(&["\x1b[A\r"], &state)?;
    assert_eq!(status.code(), Some(0), "the line before, from the session before");
    std::fs::remove_dir_all(state)?;
    Ok(())
}
