//! Keeps one session with one worker alive; knows nothing of what is said in it.

use std::time::{Duration, Instant};

use proto::Secret;
use proto::session::client::{self, Commands, Session, Updates};
use proto::session::{RouterHello, SessionEnded, SessionLimits, Welcome, WorkerUpdate};
use sched::Span;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// First pause between two attempts to reach a worker.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// A configured worker: its place in the list of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) usize);

/// What happened to the session with a worker.
#[derive(Debug)]
pub(crate) enum News {
    /// It has begun. Dropping the sender ends it.
    Up(Box<Welcome>, Commands),
    /// The worker said something.
    Update(WorkerUpdate),
    /// It is over; another one is being tried for.
    Down,
}

/// How to reach a worker.
#[derive(Debug, Clone)]
pub(crate) struct Dialling {
    pub(crate) slot: Slot,
    pub(crate) address: String,
    pub(crate) hello: RouterHello,
    pub(crate) secret: Secret,
    pub(crate) limits: SessionLimits,
    /// How often the leases of running requests are renewed.
    pub(crate) beat: Span,
    pub(crate) pause_max: Duration,
}

/// Connects, reports what comes, connects again; until nobody wants the news any more.
pub(crate) async fn keep_connected(dialling: Dialling, news: mpsc::Sender<(Slot, News)>) {
    let mut pause = Pause::new(dialling.pause_max);
    let mut last_reason = String::new();
    // What the worker calls itself, once it has said so.
    let mut name = dialling.address.clone();
    loop {
        match dial(&dialling).await {
            Ok(session) => {
                if !session.welcome.name.is_empty() {
                    name.clone_from(&session.welcome.name);
                }
                let role = session.welcome.role.label();
                match last_reason.is_empty() {
                    true => debug!(worker = name, address = dialling.address, role, "session with worker is up"),
                    false => info!(worker = name, address = dialling.address, role, "session with worker is up again"),
                }
                last_reason.clear();
                let began = Instant::now();
                let up = News::Up(Box::new(session.welcome), session.commands);
                if news.send((dialling.slot, up)).await.is_err() {
                    return;
                }
                match relay((&name, dialling.slot), session.updates, &news).await {
                    Ok(reason) => last_reason = reason,
                    Err(Unwanted) => return,
                }
                pause.ended_after(began.elapsed());
            }
            Err(reason) => {
                // The same reason every second would drown the log.
                if reason == last_reason {
                    debug!(worker = name, address = dialling.address, reason, "worker is still out of reach");
                } else {
                    info!(worker = name, address = dialling.address, reason, "worker is out of reach");
                    last_reason = reason;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = news.closed() => return,
        }
    }
}

/// A session with a worker whose leases outlive a renewal that is lost.
async fn dial(dialling: &Dialling) -> Result<Session, String> {
    let Dialling { address, hello, secret, limits, beat, .. } = dialling;
    let session = client::connect(address, hello, secret, limits).await;
    let session = session.map_err(|SessionEnded { reason }| reason.to_string())?;
    let span = session.welcome.lease_span;
    match beat.us().saturating_mul(2) <= span.us() {
        true => Ok(session),
        false => Err(format!(
            "it ends requests that are not renewed for {} s (engine.lease_span_ms), we renew every {} s (session.beat_ms)",
            span.secs_f64(),
            beat.secs_f64()
        )),
    }
}

/// Nobody wants the news any more.
struct Unwanted;

/// Passes everything on until the session ends, and says why it did.
async fn relay(
    (name, slot): (&str, Slot),
    mut updates: Updates,
    news: &mpsc::Sender<(Slot, News)>,
) -> Result<String, Unwanted> {
    loop {
        let update = tokio::select! {
            update = updates.next() => update,
            () = news.closed() => return Err(Unwanted),
        };
        let (what, over) = match update {
            WorkerUpdate::Ended(ended) => {
                let reason = ended.reason.to_string();
                warn!(worker = name, reason, "session with worker is over");
                (News::Down, Some(reason))
            }
            WorkerUpdate::Messages(_) | WorkerUpdate::Status(_) => (News::Update(update), None),
        };
        news.send((slot, what)).await.map_err(|_| Unwanted)?;
        if let Some(reason) = over {
            return Ok(reason);
        }
    }
}

/// Pauses that double up to a limit.
struct Pause {
    next: Duration,
    max: Duration,
}

impl Pause {
    fn new(max: Duration) -> Pause {
        Pause { next: PAUSE_MIN.min(max), max }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }

    /// A session that lived is a reason to hope; one that broke at once is not.
    fn ended_after(&mut self, lived: Duration) {
        if lived > self.max {
            self.next = PAUSE_MIN.min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_again_after_a_session_that_lived() {
        let mut pause = Pause::new(Duration::from_millis(100));
        let pauses: Vec<u128> = (0..5).map(|_| pause.next().as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 100, 100]);
        pause.ended_after(Duration::from_millis(5));
        assert_eq!(pause.next().as_millis(), 100);
        pause.ended_after(Duration::from_secs(5));
        assert_eq!(pause.next().as_millis(), 20);
    }
}
