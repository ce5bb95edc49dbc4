//! Queue of news to one client, bounded in number and bytes, for each client and for all together, as clients may read
//! slowly; knows no request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sched::{Score, TokenId};
use tokio::sync::mpsc;

use super::{Batch, RequestEvent};
use crate::{LimitsConfig, Relief};

/// Bytes per client that are not counted in the sum, so that slow clients cannot block the others. The number of places
/// bounds them.
const BYTES_FREE: usize = 16 << 10;

/// Bytes above which a client's queue leaves memory behind that is worth giving back.
const BYTES_MUCH: usize = 128 << 10;

/// Bounds on what may wait for clients, and the sum of what waits; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Unread {
    batches_max: usize,
    bytes_max: usize,
    sum_max: usize,
    all: Arc<All>,
}

#[derive(Debug)]
struct All {
    bytes: AtomicUsize,
    relief: Relief,
}

/// Sending end of a client's queue; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    batches: mpsc::Sender<Counted>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Set once some news had no room: the client is told no more, of none of its requests.
    broken: Arc<AtomicBool>,
    unread: Unread,
}

/// Receiving end of a client's queue.
#[derive(Debug)]
pub(crate) struct Inbox {
    batches: mpsc::Receiver<Counted>,
    /// Room of the batches taken since the client last asked, held until it asks again.
    taken: Vec<Waiting>,
}

/// Error: the client has gone, or reads so slowly that its news have no room.
#[derive(Debug)]
pub(super) struct Undeliverable;

/// Batch with the room that it takes.
#[derive(Debug)]
struct Counted {
    batch: Batch,
    waiting: Waiting,
}

/// Bytes that wait for a client; subtracted when dropped.
#[derive(Debug)]
struct Waiting {
    bytes: usize,
    own: Arc<AtomicUsize>,
    all: Arc<All>,
}

impl Unread {
    /// `relief` is told when much memory has become free.
    pub(crate) fn new(limits: &LimitsConfig, relief: Relief) -> Unread {
        Unread {
            batches_max: limits.unread_batches_max,
            bytes_max: limits.unread_bytes_max,
            sum_max: limits.unread_bytes_sum_max,
            all: Arc::new(All { bytes: AtomicUsize::new(0), relief }),
        }
    }

    pub(super) fn inbox(&self) -> (Outbox, Inbox) {
        let (sender, receiver) = mpsc::channel(self.batches_max);
        let outbox =
            Outbox { batches: sender, waiting_bytes: Arc::default(), broken: Arc::default(), unread: self.clone() };
        (outbox, Inbox { batches: receiver, taken: Vec::new() })
    }
}

impl Outbox {
    /// Queues a batch. A batch that is too large by itself is queued if nothing else waits.
    pub(super) fn put(&self, batch: Batch) -> Result<(), Undeliverable> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Undeliverable);
        }
        let waiting = self.room_for(bytes_of(&batch));
        let sent =
            waiting.and_then(|waiting| self.batches.try_send(Counted { batch, waiting }).map_err(|_| Undeliverable));
        if sent.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn room_for(&self, bytes: usize) -> Result<Waiting, Undeliverable> {
        let (own, all) = (&self.waiting_bytes, &self.unread.all);
        let before = own.fetch_add(bytes, Ordering::Relaxed);
        let after = before + bytes;
        let more = counted(after) - counted(before);
        let sum = all.bytes.fetch_add(more, Ordering::Relaxed) + more;
        let waiting = Waiting { bytes, own: Arc::clone(own), all: Arc::clone(all) };
        let is_too_much = after > self.unread.bytes_max || (more > 0 && sum > self.unread.sum_max);
        if before > 0 && is_too_much { Err(Undeliverable) } else { Ok(waiting) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let before = self.own.fetch_sub(self.bytes, Ordering::Relaxed);
        let less = counted(before) - counted(before - self.bytes);
        self.all.bytes.fetch_sub(less, Ordering::Relaxed);
        if before > BYTES_MUCH {
            self.all.relief.due();
        }
    }
}

impl Inbox {
    /// Waits for the next batch and frees the room of those before; `None` when no sender is left.
    pub(crate) async fn take(&mut self) -> Option<Batch> {
        self.taken.clear();
        let counted = self.batches.recv().await?;
        Some(self.keep(counted))
    }

    /// Returns the next batch if there is one, to go together with those since the last `take`.
    pub(crate) fn try_take(&mut self) -> Option<Batch> {
        let counted = self.batches.try_recv().ok()?;
        Some(self.keep(counted))
    }

    fn keep(&mut self, counted: Counted) -> Batch {
        self.taken.push(counted.waiting);
        counted.batch
    }
}

/// Bytes of one client that count in the sum of all.
fn counted(bytes: usize) -> usize {
    bytes.saturating_sub(BYTES_FREE)
}

/// Alternatives that take as much room as a score without any.
const SCORE_ALTERNATIVES: usize = size_of::<Score>().div_ceil(size_of::<(TokenId, f32)>());

fn bytes_of(batch: &[RequestEvent]) -> usize {
    let alternatives = |event: &RequestEvent| match event {
        RequestEvent::Token { delivery, .. } => delivery.token.top.len(),
        RequestEvent::Scores { scores, .. } => {
            scores.scores.iter().map(|score| SCORE_ALTERNATIVES + score.top.len()).sum()
        }
        RequestEvent::End { .. } => 0,
    };
    batch.iter().map(|event| size_of::<RequestEvent>() + alternatives(event) * size_of::<(TokenId, f32)>()).sum()
}

#[cfg(test)]
mod tests {
    use sched::RequestId;
    use sched::journey::Ending;

    use super::*;

    const ONE: usize = size_of::<RequestEvent>();

    fn batch(events: usize) -> Batch {
        (0..events).map(|_| RequestEvent::End { request: RequestId(1), ending: Ending::Done }).collect()
    }

    fn unread(bytes_max: usize, sum_max: usize) -> Unread {
        let limits =
            LimitsConfig { unread_bytes_max: bytes_max, unread_bytes_sum_max: sum_max, ..LimitsConfig::default() };
        Unread::new(&limits, Relief::none())
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_given_back() {
        let unread = unread(3 * ONE, 1 << 20);
        let (outbox, mut inbox) = unread.inbox();
        outbox.put(batch(2)).unwrap();
        outbox.put(batch(1)).unwrap();
        assert_eq!(inbox.take().await.unwrap().len(), 2);
        assert_eq!(inbox.try_take().unwrap().len(), 1);
        assert!(outbox.put(batch(1)).is_err(), "what was taken is not read yet");
        assert!(inbox.try_take().is_none());
        let (outbox, inbox) = unread.inbox();
        drop(inbox);
        assert!(outbox.put(batch(1)).is_err(), "nobody is there");
        let (outbox, mut inbox) = unread.inbox();
        outbox.put(batch(9)).unwrap();
        assert_eq!(inbox.take().await.unwrap().len(), 9);
        let asked_again = tokio::time::timeout(std::time::Duration::ZERO, inbox.take()).await;
        assert!(asked_again.is_err());
        outbox.put(batch(1)).unwrap();
    }

    /// Found by reading: a client whose first prompt had lost news waited for all its others to end.
    #[tokio::test]
    async fn a_client_that_has_lost_news_of_one_request_gets_none_of_its_others() {
        let (first, mut inbox) = unread(3 * ONE, 1 << 20).inbox();
        let second = first.clone();
        first.put(batch(3)).unwrap();
        assert!(first.put(batch(1)).is_err());
        assert_eq!(inbox.take().await.unwrap().len(), 3);
        let asked_again = tokio::time::timeout(std::time::Duration::ZERO, inbox.take()).await;
        assert!(asked_again.is_err(), "what it had is read");
        assert!(second.put(batch(1)).is_err());
    }

    #[test]
    fn all_clients_together_are_bounded_and_those_who_read_have_room() {
        let many = BYTES_FREE / ONE;
        let unread = unread(usize::MAX, 3 * BYTES_FREE);
        let slow: Vec<_> = (0..4).map(|_| unread.inbox()).collect();
        let put = |refused: &mut usize, outbox: &Outbox| *refused += usize::from(outbox.put(batch(many / 2)).is_err());
        let mut refused = 0;
        for _ in 0..10 {
            slow.iter().for_each(|(outbox, _)| put(&mut refused, outbox));
        }
        assert!(refused > 0);
        let waiting: usize = slow.iter().map(|(outbox, _)| outbox.waiting_bytes.load(Ordering::Relaxed)).sum();
        assert!(waiting <= 3 * BYTES_FREE + 4 * BYTES_FREE, "{waiting}");
        let (outbox, _inbox) = unread.inbox();
        outbox.put(batch(many / 2)).unwrap();
        outbox.put(batch(many / 4)).unwrap();
        drop(slow);
        assert_eq!(unread.all.bytes.load(Ordering::Relaxed), 0);
    }
}
