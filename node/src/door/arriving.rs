//! Body of a request on its way in; marks the request as complete when all of it is there; knows no route.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::seats::Occupied;

/// Body whose connection keeps its place once the last byte is there.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Incoming,
    occupied: Arc<Occupied>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, occupied: Arc<Occupied>) -> Arriving {
        let arriving = Arriving { body, occupied };
        arriving.look();
        arriving
    }

    fn look(&self) {
        if self.body.is_end_stream() {
            self.occupied.complete();
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match frame {
            Poll::Ready(None) => self.occupied.complete(),
            Poll::Ready(Some(_)) => self.look(),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
