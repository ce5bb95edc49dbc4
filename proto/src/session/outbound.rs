//! Stream of a worker to one session: challenge, welcome once the router has proved itself, then batches.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sched::message::FromWorker;
use sched::{Failure, FailureKind};
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::Status;

use super::batch::Batch;
use super::table::{Outgoing, QueueReader};
use crate::convert::Wire;
use crate::generated as wire;
use crate::generated::worker_message::Body;
use crate::status::status_of;

pub(super) type Admission = Result<(wire::Welcome, QueueReader), Status>;

/// Stream of a worker to a router.
pub struct WorkerStream {
    challenge: Option<wire::Challenge>,
    state: State,
}

enum State {
    Greeting(oneshot::Receiver<Admission>),
    Open(Open),
    Over,
}

impl WorkerStream {
    pub(super) fn new(challenge: wire::Challenge, admission: oneshot::Receiver<Admission>) -> WorkerStream {
        WorkerStream { challenge: Some(challenge), state: State::Greeting(admission) }
    }
}

impl Stream for WorkerStream {
    type Item = Result<wire::WorkerMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(challenge) = self.challenge.take() {
            return Poll::Ready(Some(Ok(message(Body::Challenge(challenge)))));
        }
        let next = match &mut self.state {
            State::Over => return Poll::Ready(None),
            State::Open(open) => ready!(open.poll_next(cx)),
            State::Greeting(admission) => match ready!(Pin::new(admission).poll(cx)) {
                Ok(Ok((welcome, queue))) => {
                    self.state = State::Open(Open::new(queue));
                    Ok(Body::Welcome(welcome))
                }
                Ok(Err(status)) => Err(status),
                // The task of the greeting is gone, because the worker's runtime shuts down.
                Err(_) => Err(status_of(&Failure::new(FailureKind::WorkerLost, "the worker has stopped"))),
            },
        };
        if next.is_err() {
            self.state = State::Over;
        }
        Poll::Ready(Some(next.map(message)))
    }
}

struct Open {
    queue: QueueReader,
    /// Messages taken from the queue and not yet in a batch.
    pending: VecDeque<FromWorker>,
    /// Entry that came after messages that have to be written first.
    next: Option<Outgoing>,
}

impl Open {
    fn new(queue: QueueReader) -> Open {
        Open { queue, pending: VecDeque::new(), next: None }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, Status>> {
        if let Some(messages) = self.fill(cx) {
            return Poll::Ready(Ok(Body::Batch(wire::WorkerBatch { messages })));
        }
        match self.next.take() {
            // Taken only now, so that it has the changes made while earlier messages were written.
            Some(Outgoing::Status) => match self.queue.status() {
                Some(status) => Poll::Ready(Ok(Body::Status(status.to_wire()))),
                None => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
            Some(Outgoing::End(failure)) => Poll::Ready(Err(status_of(&failure))),
            Some(Outgoing::Messages(_)) | None => Poll::Pending,
        }
    }

    fn fill(&mut self, cx: &mut Context<'_>) -> Option<Vec<wire::FromWorker>> {
        let mut batch = Batch::new();
        while !batch.is_full() {
            if let Some(message) = self.pending.pop_front() {
                self.queue.written(1);
                batch.push(message.to_wire());
            } else if self.next.is_some() {
                break;
            } else {
                match self.queue.receiver.poll_recv(cx) {
                    Poll::Ready(Some(Outgoing::Messages(messages))) => self.pending.extend(messages),
                    Poll::Ready(Some(other)) => self.next = Some(other),
                    Poll::Ready(None) => {
                        let over = Failure::new(FailureKind::InvalidRequest, "the session is over");
                        self.next = Some(Outgoing::End(over));
                    }
                    Poll::Pending => break,
                }
            }
        }
        batch.take()
    }
}

fn message(body: Body) -> wire::WorkerMessage {
    wire::WorkerMessage { body: Some(body) }
}
