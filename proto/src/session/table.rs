//! Table of a worker's sessions: their legs, and the messages that wait to be written to each; knows no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sched::message::{FromWorker, Load, ToWorker};
use sched::{Failure, FailureKind, Leg};
use tokio::sync::{Notify, mpsc};

use super::{Phase, SessionLimits, WorkerStatus};

/// Number of a session; counted up, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(u64);

pub(super) enum Outgoing {
    Messages(Vec<FromWorker>),
    /// A status has to be written; [`QueueReader::status`] has it.
    Status,
    End(Failure),
}

/// Write queue of a session. It counts messages, not batches, so that its limit bounds memory.
#[derive(Clone)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Outgoing>,
    waiting: Arc<AtomicUsize>,
    status: LatestStatus,
    /// Wakes the session's reader when the worker ends the session.
    pub(super) ending: Arc<Notify>,
}

impl Queue {
    fn new() -> (Queue, QueueReader) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let status = LatestStatus::default();
        let reader = QueueReader { receiver, waiting: waiting.clone(), status: status.clone() };
        (Queue { sender, waiting, status, ending: Arc::new(Notify::new()) }, reader)
    }

    /// Waits until the connection that writes the queue is gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    pub(super) fn end(&self, failure: Failure) {
        let _ = self.sender.send(Outgoing::End(failure));
        self.ending.notify_one();
    }

    fn put(&self, messages: Vec<FromWorker>, max: usize) {
        let waiting = self.waiting.fetch_add(messages.len(), Ordering::Relaxed);
        if waiting > max {
            let detail = format!("{waiting} messages wait to be read, more than {max}: the router reads too slowly");
            self.end(Failure::new(FailureKind::Overloaded, detail));
            return;
        }
        // Sending fails only in a session that is ending.
        let _ = self.sender.send(Outgoing::Messages(messages));
    }

    /// Queues a status, in place of one that has not been written yet: a slow router needs no old status.
    fn put_status(&self, status: WorkerStatus) {
        let mut waiting = self.status.lock();
        if waiting.replace(status).is_none() {
            let _ = self.sender.send(Outgoing::Status);
        }
    }
}

/// Status that waits to be written. While there is one, exactly one [`Outgoing::Status`] is in the queue.
#[derive(Clone, Default)]
struct LatestStatus(Arc<Mutex<Option<WorkerStatus>>>);

impl LatestStatus {
    fn lock(&self) -> MutexGuard<'_, Option<WorkerStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct QueueReader {
    pub(super) receiver: mpsc::UnboundedReceiver<Outgoing>,
    waiting: Arc<AtomicUsize>,
    status: LatestStatus,
}

impl QueueReader {
    pub(super) fn written(&self, messages: usize) {
        self.waiting.fetch_sub(messages, Ordering::Relaxed);
    }

    /// Takes the latest status that an [`Outgoing::Status`] announced.
    pub(super) fn status(&self) -> Option<WorkerStatus> {
        self.status.lock().take()
    }
}

struct Entry {
    queue: Queue,
    legs: BTreeSet<Leg>,
}

pub(super) struct Table {
    limits: SessionLimits,
    next: u64,
    sessions: BTreeMap<SessionId, Entry>,
    /// Session of each leg, until the worker says that the leg is over, even if its session ends before.
    legs: BTreeMap<Leg, SessionId>,
    status: WorkerStatus,
}

impl Table {
    pub(super) fn new(limits: SessionLimits) -> Table {
        Table {
            limits,
            next: 0,
            sessions: BTreeMap::new(),
            legs: BTreeMap::new(),
            status: WorkerStatus {
                load: Load::default(),
                pairs: Vec::new(),
                phase: Phase::Accepting,
                problems: Vec::new(),
            },
        }
    }

    /// Opens a session, with the last status as its first entry.
    pub(super) fn open(&mut self) -> (SessionId, Queue, QueueReader) {
        let id = SessionId(self.next);
        self.next += 1;
        let (queue, reader) = Queue::new();
        queue.put_status(self.status.clone());
        self.sessions.insert(id, Entry { queue: queue.clone(), legs: BTreeSet::new() });
        (id, queue, reader)
    }

    /// Forgets a session; returns its legs, which have to be cancelled.
    pub(super) fn close(&mut self, id: SessionId) -> Vec<Leg> {
        self.sessions.remove(&id).into_iter().flat_map(|entry| entry.legs).collect()
    }

    pub(super) fn begin(&mut self, id: SessionId, leg: Leg) -> Result<(), Failure> {
        if self.status.phase == Phase::Draining {
            return Err(Failure::new(FailureKind::Unavailable, "the worker is draining"));
        }
        let entry = self.sessions.get_mut(&id).ok_or(Failure::new(FailureKind::Internal, "the session is over"))?;
        if self.legs.contains_key(&leg) {
            let detail = format!("{leg} runs here already");
            return Err(Failure::new(FailureKind::InvalidRequest, detail));
        }
        if entry.legs.len() >= self.limits.legs_max {
            let detail = format!("{} legs run in this session already", self.limits.legs_max);
            return Err(Failure::new(FailureKind::Overloaded, detail));
        }
        entry.legs.insert(leg);
        self.legs.insert(leg, id);
        Ok(())
    }

    /// Returns the part of a message about legs of this session, and a leg of another session that it names. A session
    /// cannot end, renew or commit another's leg; a leg that has just ended belongs to none.
    pub(super) fn own(&self, id: SessionId, message: ToWorker) -> (Option<ToWorker>, Option<Leg>) {
        let mut foreign = None;
        let mut is_own = |leg: Leg| match self.legs.get(&leg) {
            Some(session) if *session == id => true,
            Some(_) => {
                foreign = Some(leg);
                false
            }
            None => false,
        };
        let own = match message {
            ToWorker::Submit(..) | ToWorker::Offer(_) => Some(message),
            ToWorker::Commit(commit) => is_own(commit.leg).then_some(ToWorker::Commit(commit)),
            ToWorker::Cancel { leg, choice } => is_own(leg).then_some(ToWorker::Cancel { leg, choice }),
            ToWorker::Renew(mut legs) => {
                legs.retain(|leg| is_own(*leg));
                (!legs.is_empty()).then_some(ToWorker::Renew(legs))
            }
        };
        (own, foreign)
    }

    /// Forgets a leg about which no message will follow.
    pub(super) fn over(&mut self, leg: Leg) {
        let session = self.legs.remove(&leg);
        if let Some(session) = session.and_then(|session| self.sessions.get_mut(&session)) {
            session.legs.remove(&leg);
        }
    }

    pub(super) fn forget_legs(&mut self) {
        self.legs.clear();
        self.sessions.values_mut().for_each(|session| session.legs.clear());
    }

    /// Queues messages for the sessions of their legs; returns the number of messages whose session has ended.
    pub(super) fn deliver(&self, messages: impl Iterator<Item = FromWorker>) -> usize {
        let mut ready: BTreeMap<SessionId, Vec<FromWorker>> = BTreeMap::new();
        let mut orphans = 0;
        for message in messages {
            match self.legs.get(&message.leg()).filter(|session| self.sessions.contains_key(session)) {
                Some(session) => ready.entry(*session).or_default().push(message),
                None => orphans += 1,
            }
        }
        for (id, messages) in ready {
            if let Some(session) = self.sessions.get(&id) {
                session.queue.put(messages, self.limits.queue_messages_max);
            }
        }
        orphans
    }

    /// Reports `failure` of a leg that was not registered.
    pub(super) fn refuse(&self, id: SessionId, leg: Leg, failure: Failure) {
        if let Some(session) = self.sessions.get(&id) {
            session.queue.put(vec![FromWorker::Failed { leg, failure }], self.limits.queue_messages_max);
        }
    }

    pub(super) fn publish(&mut self, change: impl FnOnce(&mut WorkerStatus)) {
        change(&mut self.status);
        for session in self.sessions.values() {
            session.queue.put_status(self.status.clone());
        }
    }

    pub(super) fn drain(&mut self) {
        self.publish(|status| status.phase = Phase::Draining);
    }

    pub(super) fn end_all(&mut self, failure: &Failure) {
        for session in self.sessions.values() {
            session.queue.end(failure.clone());
        }
    }

    pub(super) fn legs(&self) -> usize {
        self.legs.len()
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_that_reads_nothing_has_one_status_waiting_the_latest() {
        let mut table = Table::new(SessionLimits::default());
        let (_, _, mut reader) = table.open();
        for running in 1..=1000 {
            table.publish(|status| status.load.running = running);
        }
        assert_eq!(reader.receiver.len(), 1);
        assert!(matches!(reader.receiver.try_recv(), Ok(Outgoing::Status)));
        assert_eq!(reader.status().map(|status| status.load.running), Some(1000));

        table.drain();
        assert!(matches!(reader.receiver.try_recv(), Ok(Outgoing::Status)), "the next one is announced again");
        assert_eq!(reader.status().map(|status| status.phase), Some(Phase::Draining));
        assert!(reader.receiver.is_empty());
    }
}
