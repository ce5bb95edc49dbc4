//! Interface between the front and the threads of a transport; knows the inside of neither.

use std::sync::Arc;

use kernels::memory::Region;

use crate::batch::Job;
use crate::endpoint::Endpoint;
use crate::{PeerId, RegionId, Ticket, TransferError};

/// Handle of the front on a transport's threads. Dropping it stops them and waits until they have ended.
pub(crate) trait Driver: Send {
    /// Makes memory servable and returns the key that readers need, empty if none. May wait for the threads.
    fn register(&mut self, region: RegionId, memory: &Region) -> Result<Vec<u8>, TransferError>;

    /// Queues a command; never waits.
    fn submit(&mut self, command: Command) -> Result<(), TransferError>;
}

/// Order to the threads, checked by the front: ids are fresh or known, ranges lie inside their regions.
#[derive(Debug)]
pub(crate) enum Command {
    Connect { peer: PeerId, endpoint: Endpoint },
    Start { ticket: Ticket, peer: PeerId, job: Arc<Job> },
    Abort { ticket: Ticket, peer: PeerId },
    Disconnect { peer: PeerId },
}
