//! Peers that this worker may pull from: their connection, resharding and state; knows no leg.

use std::collections::BTreeMap;

use kv_transfer::PeerId;
use sched::InstanceId;
use sched::layout::Resharding;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) resharding: Resharding,
    pub(super) blocks: u32,
    pub(super) link: Link,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Link {
    Connecting,
    Up {
        /// Rate measured at connect.
        bytes_per_second: f64,
    },
}

/// All peers, by instance and by connection.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<InstanceId, Peer>,
    instances: BTreeMap<PeerId, InstanceId>,
}

impl Peers {
    pub(super) fn insert(&mut self, instance: InstanceId, peer: Peer) {
        self.instances.insert(peer.id, instance);
        self.peers.insert(instance, peer);
    }

    pub(super) fn remove(&mut self, instance: InstanceId) -> Option<Peer> {
        let peer = self.peers.remove(&instance)?;
        self.instances.remove(&peer.id);
        Some(peer)
    }

    /// Marks a connection as up; returns its peer if that is still wanted.
    pub(super) fn up(&mut self, id: PeerId, bytes_per_second: f64) -> Option<InstanceId> {
        let instance = *self.instances.get(&id)?;
        self.peers.get_mut(&instance)?.link = Link::Up { bytes_per_second };
        Some(instance)
    }

    /// Removes a connection that is gone; returns its peer if that was still wanted.
    pub(super) fn down(&mut self, id: PeerId) -> Option<InstanceId> {
        let instance = self.instances.remove(&id)?;
        self.peers.remove(&instance);
        Some(instance)
    }

    /// Returns a connected peer and its rate, or why there is none.
    pub(super) fn connected(&self, instance: InstanceId) -> Result<(&Peer, f64), String> {
        match self.peers.get(&instance) {
            None => Err(format!("{instance} is not a peer of this worker")),
            Some(Peer { link: Link::Connecting, .. }) => Err(format!("{instance} is not connected yet")),
            Some(peer @ Peer { link: Link::Up { bytes_per_second }, .. }) => Ok((peer, *bytes_per_second)),
        }
    }
}
