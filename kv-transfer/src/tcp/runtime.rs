//! The runtime thread: accepts readers, and gives each command to the task of its peer. Knows no frame.

use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::owner::{self, Owner};
use super::reader::{self, Order};
use crate::driver::Command;
use crate::outbox::Outbox;
use crate::{Limits, PeerId, Ticket, TransferError, TransferEvent};

pub(super) struct Work {
    pub(super) listener: Option<StdListener>,
    pub(super) owner: Arc<Owner>,
    pub(super) commands: UnboundedReceiver<Command>,
    pub(super) outbox: Outbox,
    pub(super) limits: Limits,
}

/// Runs until the front is dropped, which ends every connection.
pub(super) fn run(work: Work) {
    let _alive = work.outbox.essential("the tcp thread");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    match runtime {
        Ok(runtime) => runtime.block_on(drive(work)),
        Err(error) => tracing::error!(%error, "the tcp transport has no runtime and stops"),
    }
}

async fn drive(work: Work) {
    let Work { listener, owner, mut commands, outbox, limits } = work;
    match listener.map(TcpListener::from_std).transpose() {
        Ok(Some(listener)) => {
            drop(tokio::spawn(owner::accept(listener, owner, outbox.essential("the task that accepts readers"))))
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(%error, "the tcp transport cannot listen and stops");
            return;
        }
    }
    let mut peers: BTreeMap<PeerId, UnboundedSender<Order>> = BTreeMap::new();
    while let Some(command) = commands.recv().await {
        peers.retain(|_, orders| !orders.is_closed());
        match command {
            Command::Connect { peer, endpoint } => {
                let (orders, inbox) = unbounded_channel();
                peers.insert(peer, orders);
                tokio::spawn(reader::run(peer, endpoint, inbox, outbox.clone(), limits));
            }
            Command::Start { ticket, peer, job } => {
                let order = Order::Start { ticket, job };
                if peers.get(&peer).is_none_or(|orders| orders.send(order).is_err()) {
                    outbox.tell(too_late(ticket));
                }
            }
            // A peer that is down has ended its batches already.
            Command::Abort { ticket, peer } => {
                let _down = peers.get(&peer).map(|orders| orders.send(Order::Abort { ticket }));
            }
            // Dropping the sender ends the task.
            Command::Disconnect { peer } => drop(peers.remove(&peer)),
        }
    }
}

/// Event that ends a batch started just after its peer went down.
pub(super) fn too_late(ticket: Ticket) -> TransferEvent {
    TransferEvent::Failed { ticket, error: TransferError::lost("start a batch", "it went down meanwhile") }
}
