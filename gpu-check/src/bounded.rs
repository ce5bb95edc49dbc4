//! Limits on processes: a child that is killed at a limit, and a limit on this process.

use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(5);
/// Longest wait for a killed process, which ends at once unless a system call of the GPU's kernel module is stuck.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the pipes of an ended process, which are empty at once unless a grandchild holds them open.
const PIPE_LIMIT: Duration = Duration::from_secs(2);
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
    pub(crate) complaint: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Unended {
    #[error("the measuring process could not be started: {0}")]
    Start(io::Error),
    #[error("killed after {limit:?}: it did not answer{}", said(complaint))]
    Killed { limit: Duration, complaint: String },
    #[error("after {limit:?} it did not answer, and killing it had no effect either: it hangs in the driver")]
    Unkillable { limit: Duration },
    #[error("waiting for the measuring process: {0}")]
    Wait(io::Error),
}

fn said(complaint: &str) -> String {
    if complaint.is_empty() { String::new() } else { format!(" ({complaint})") }
}

/// Runs a child with `input` on its standard input (less than a pipe holds), and kills it at the limit.
pub(crate) fn run(command: &mut Command, input: &str, limit: Duration) -> Result<Ended, Unended> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Unended::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended before reading says why in its output, which is read below.
        let _ended_early = stdin.write_all(input.as_bytes());
    }
    let output = child.stdout.take().map(collect);
    let complaint = child.stderr.take().map(collect);
    let status = wait(&mut child, limit).map_err(Unended::Wait)?;
    let complaint = |wait| complaint.map_or_else(String::new, |pipe| received(&pipe, wait));
    match status {
        Some(status) => Ok(Ended {
            status,
            output: output.map_or_else(String::new, |pipe| received(&pipe, PIPE_LIMIT)),
            complaint: complaint(PIPE_LIMIT),
        }),
        None => {
            child.kill().map_err(Unended::Wait)?;
            match wait(&mut child, KILL_LIMIT).map_err(Unended::Wait)? {
                Some(_) => Err(Unended::Killed { limit, complaint: complaint(PIPE_LIMIT) }),
                None => Err(Unended::Unkillable { limit }),
            }
        }
    }
}

/// Ends this process at the limit, whatever its threads do: a driver call cannot be interrupted otherwise.
pub(crate) fn die_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        let _closed = writeln!(io::stderr(), "no result within {limit:?}");
        // SAFETY: ends the process without running the exit handlers of libraries, which may wait for the device.
        unsafe { libc::_exit(i32::from(crate::INCOMPLETE)) };
    });
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    loop {
        let status = child.try_wait()?;
        if status.is_some() || began.elapsed() >= limit {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
}

fn collect(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Output before a broken pipe is kept: there is no more.
        let _broken = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        let _nobody_waits = send.send(String::from_utf8_lossy(&bytes).trim().to_owned());
    });
    receive
}

/// Output received within `limit`; empty if a grandchild still holds the pipe open.
fn received(pipe: &Receiver<String>, limit: Duration) -> String {
    pipe.recv_timeout(limit).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_child_says_is_kept() {
        let ended = run(&mut shell("cat; echo oops >&2; exit 3"), "task\n", Duration::from_secs(60)).unwrap();
        assert_eq!((ended.status.code(), ended.output.as_str(), ended.complaint.as_str()), (Some(3), "task", "oops"));
    }

    #[test]
    fn a_child_that_reads_nothing_is_no_error() {
        let ended = run(&mut shell("exit 0"), "task\n", Duration::from_secs(60)).unwrap();
        assert!(ended.status.success());
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let limit = Duration::from_millis(200);
        let refused = run(&mut shell("echo stuck >&2; exec sleep 600"), "", limit).unwrap_err();
        assert_eq!(refused.to_string(), "killed after 200ms: it did not answer (stuck)");
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipes_open_holds_up_nothing() {
        let began = Instant::now();
        let ended = run(&mut shell("sleep 20 & exit 0"), "", Duration::from_secs(60)).unwrap();
        assert!(ended.status.success() && ended.output.is_empty());
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let refused = run(&mut Command::new("/does/not/exist"), "", Duration::from_secs(1)).unwrap_err();
        assert!(refused.to_string().starts_with("the measuring process could not be started: "), "{refused}");
    }
}
