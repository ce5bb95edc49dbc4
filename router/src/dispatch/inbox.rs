//! News on their way to one client: bounded in number and bytes, for a client may read slowly; knows no request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sched::TokenId;
use tokio::sync::mpsc;

use super::{Batch, RequestEvent};

/// Where news for a client are put; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    batches: mpsc::Sender<Batch>,
    waiting_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Where a client's side takes its news from.
#[derive(Debug)]
pub(crate) struct Inbox {
    batches: mpsc::Receiver<Batch>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// The client has gone or reads so slowly that its news have no room.
#[derive(Debug)]
pub(super) struct Undeliverable;

/// Both ends, for so many batches and bytes at a time.
pub(super) fn inbox(batches_max: usize, bytes_max: usize) -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(batches_max);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox { batches: sender, waiting_bytes: Arc::clone(&waiting_bytes), bytes_max };
    (outbox, Inbox { batches: receiver, waiting_bytes })
}

impl Outbox {
    /// Puts a batch in. A batch that alone is too large goes in when nothing waits.
    pub(super) fn put(&self, batch: Batch) -> Result<(), Undeliverable> {
        if batch.is_empty() {
            return if self.batches.is_closed() { Err(Undeliverable) } else { Ok(()) };
        }
        let bytes = bytes_of(&batch);
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting > 0 && waiting + bytes > self.bytes_max {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Undeliverable);
        }
        self.batches.try_send(batch).map_err(|_| {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            Undeliverable
        })
    }
}

impl Inbox {
    /// The next batch; `None` when nobody will put one in any more.
    pub(crate) async fn take(&mut self) -> Option<Batch> {
        let batch = self.batches.recv().await;
        self.taken(batch)
    }

    /// The next batch if there is one.
    pub(crate) fn try_take(&mut self) -> Option<Batch> {
        let batch = self.batches.try_recv().ok();
        self.taken(batch)
    }

    fn taken(&self, batch: Option<Batch>) -> Option<Batch> {
        if let Some(batch) = &batch {
            self.waiting_bytes.fetch_sub(bytes_of(batch), Ordering::Relaxed);
        }
        batch
    }
}

fn bytes_of(batch: &[RequestEvent]) -> usize {
    let alternatives = |event: &RequestEvent| match event {
        RequestEvent::Token { delivery, .. } => delivery.token.top.len(),
        RequestEvent::End { .. } => 0,
    };
    batch.iter().map(|event| size_of::<RequestEvent>() + alternatives(event) * size_of::<(TokenId, f32)>()).sum()
}

#[cfg(test)]
mod tests {
    use sched::RequestId;
    use sched::journey::Ending;

    use super::*;

    fn batch(events: usize) -> Batch {
        (0..events).map(|_| RequestEvent::End { request: RequestId(1), ending: Ending::Done }).collect()
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_given_back() {
        let one = size_of::<RequestEvent>();
        let (outbox, mut inbox) = inbox(100, 3 * one);
        outbox.put(batch(2)).unwrap();
        assert!(outbox.put(batch(2)).is_err());
        outbox.put(batch(1)).unwrap();
        assert_eq!(inbox.take().await.unwrap().len(), 2);
        assert_eq!(inbox.try_take().unwrap().len(), 1);
        outbox.put(batch(9)).unwrap();
        assert!(outbox.put(batch(1)).is_err(), "the giant waits");
        drop(inbox);
        assert!(outbox.put(Batch::new()).is_err(), "nobody is there");
    }
}
