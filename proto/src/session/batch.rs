//! Batches and the router's stream: all messages that are ready go into one, so that a wake costs one write.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prost::Message;
use sched::message::ToWorker;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;

use crate::convert::Wire;
use crate::convert::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX};
use crate::generated as wire;
use crate::generated::router_message::Body;

pub(super) struct Batch<M> {
    messages: Vec<M>,
    bytes: usize,
}

impl<M: Message> Batch<M> {
    pub(super) fn new() -> Batch<M> {
        Batch { messages: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, message: M) {
        self.bytes += message.encoded_len();
        self.messages.push(message);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX || self.messages.len() >= BATCH_MESSAGES_MAX
    }

    pub(super) fn take(&mut self) -> Option<Vec<M>> {
        self.bytes = 0;
        Some(std::mem::take(&mut self.messages)).filter(|messages| !messages.is_empty())
    }
}

/// Stream of the router: hello, proof once the challenge is known, then batches until every sender is gone.
pub(super) struct CommandStream {
    hello: Option<wire::RouterHello>,
    proof: Option<oneshot::Receiver<wire::RouterProof>>,
    queue: mpsc::Receiver<ToWorker>,
}

impl CommandStream {
    pub(super) fn new(
        hello: wire::RouterHello,
        proof: oneshot::Receiver<wire::RouterProof>,
        queue: mpsc::Receiver<ToWorker>,
    ) -> CommandStream {
        CommandStream { hello: Some(hello), proof: Some(proof), queue }
    }
}

impl Stream for CommandStream {
    type Item = wire::RouterMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<wire::RouterMessage>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(wire::RouterMessage { body: Some(Body::Hello(hello)) }));
        }
        if let Some(proof) = &mut self.proof {
            // No proof comes if the router has given the session up.
            let Ok(proof) = ready!(Pin::new(proof).poll(cx)) else { return Poll::Ready(None) };
            self.proof = None;
            return Poll::Ready(Some(wire::RouterMessage { body: Some(Body::Proof(proof)) }));
        }
        let mut batch = Batch::new();
        while !batch.is_full() {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(message)) => batch.push(message.to_wire()),
                Poll::Ready(None) | Poll::Pending if !batch.messages.is_empty() => break,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        let messages = batch.take().unwrap_or_default();
        Poll::Ready(Some(wire::RouterMessage { body: Some(Body::Batch(wire::RouterBatch { messages })) }))
    }
}
