//! Orderly end of a process: asked to end, gate shut, drained, torn down.

use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::admin::Gate;

/// Reason why a process was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM.
    Terminated,
    /// SIGINT, Ctrl-C.
    Interrupted,
    /// SIGHUP: the terminal was closed.
    HungUp,
    /// The supervisor has closed standard input, most likely by dying.
    SupervisorGone,
}

impl Cause {
    /// Returns true if senders of requests may need time to learn of the end. SIGTERM comes from systems with load
    /// balancers; after Ctrl-C or the supervisor's end somebody waits for the end itself.
    #[must_use]
    pub const fn has_a_load_balancer(self) -> bool {
        match self {
            Cause::Terminated => true,
            Cause::Interrupted | Cause::HungUp | Cause::SupervisorGone => false,
        }
    }
}

/// Whether a supervisor started this process and holds the other end of its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervision {
    /// Not supervised: standard input is ignored.
    Alone,
    /// Supervised: the end of standard input means that the supervisor is gone.
    Child,
}

/// Outcome of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All requests have ended.
    Empty,
    /// Time was up; the remaining requests are cut off.
    CutOff,
}

/// Request to end that all parts of a process share, through clones. Dropping the last clone asks too, so that no part
/// outlives a start that failed half-way.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<watch::Sender<bool>>,
}

impl Stop {
    /// Makes a request that is not raised yet.
    #[must_use]
    pub fn new() -> Stop {
        Stop { asked: Arc::new(watch::Sender::new(false)) }
    }

    /// Asks every part to end.
    pub fn ask(&self) {
        self.asked.send_replace(true);
    }

    /// Resolves when asked.
    pub fn asked(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut asked = self.asked.subscribe();
        async move {
            // An error says that every `Stop` is gone, which asks as well.
            let _ = asked.wait_for(|asked| *asked).await;
        }
    }
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::new()
    }
}

/// Resolves when the process is asked to end; fails when the system does not allow listening for signals.
pub async fn asked(supervision: Supervision) -> std::io::Result<Cause> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let gone = supervisor_gone(supervision);
    let hung_up = hung_up()?;
    tokio::select! {
        _ = terminate.recv() => Ok(Cause::Terminated),
        _ = interrupt.recv() => Ok(Cause::Interrupted),
        () = hung_up => Ok(Cause::HungUp),
        () = gone => Ok(Cause::SupervisorGone),
    }
}

/// Resolves when the terminal is closed, unless SIGHUP is ignored (`nohup`).
fn hung_up() -> std::io::Result<impl Future<Output = ()>> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut hang_up = if ignores_hang_up(&status) { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        match &mut hang_up {
            Some(hang_up) => {
                hang_up.recv().await;
            }
            None => std::future::pending().await,
        }
    })
}

/// Returns true if SIGHUP, signal 1, is in the set of ignored signals in `/proc/<pid>/status`.
fn ignores_hang_up(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & 1 == 1)
}

/// Reads on a thread of its own, as a pending read of the runtime would keep the process from ending.
async fn supervisor_gone(supervision: Supervision) {
    match supervision {
        Supervision::Alone => std::future::pending().await,
        Supervision::Child => {
            let (tell, told) = oneshot::channel::<()>();
            std::thread::spawn(move || {
                read_to_end(std::io::stdin().lock());
                drop(tell);
            });
            let _ = told.await;
        }
    }
}

fn read_to_end(mut input: impl Read) {
    let mut ignored = [0; 256];
    loop {
        match input.read(&mut ignored) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Shuts the gate, then waits for `idle` at most `limit`.
pub async fn drain(gate: &Gate, limit: Duration, idle: impl Future<Output = ()>) -> Drained {
    gate.drain();
    match tokio::time::timeout(limit, idle).await {
        Ok(()) => Drained::Empty,
        Err(_) => Drained::CutOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Readiness;

    #[tokio::test]
    async fn draining_shuts_the_gate_and_is_bounded() {
        let gate = Gate::starting("model");
        gate.open();
        assert_eq!(drain(&gate, Duration::from_secs(5), async {}).await, Drained::Empty);
        assert_eq!(gate.readiness(), Readiness::Draining);
        let never = std::future::pending();
        assert_eq!(drain(&gate, Duration::from_millis(10), never).await, Drained::CutOff);
    }

    #[tokio::test]
    async fn a_stop_is_asked_by_word_or_by_being_dropped() {
        let stop = Stop::new();
        let (by_word, by_drop) = (stop.asked(), stop.asked());
        stop.clone().ask();
        by_word.await;
        drop(stop);
        by_drop.await;
    }

    #[test]
    fn nohup_is_heard() {
        assert!(ignores_hang_up("Name:\tbaton\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n"));
        assert!(!ignores_hang_up("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hang_up(""));
    }

    #[test]
    fn the_guard_waits_for_the_other_end_to_close() {
        let (reader, writer) = std::io::pipe().unwrap();
        let guard = std::thread::spawn(move || read_to_end(reader));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!guard.is_finished(), "the supervisor still lives");
        drop(writer);
        guard.join().unwrap();
    }
}
