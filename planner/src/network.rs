//! KV transfers between simulated workers, which share the ends of their links; knows bytes, not what they mean.
//!
//! Each worker sends and receives at the rate of its link. Transfers at one end share it equally, and each runs at the
//! smaller of its two shares; an unused rest is not given to others, so this network is never faster than a real one.
//! Whenever a transfer begins or ends, those that share its ends are re-timed.

use std::collections::{BTreeMap, BTreeSet};

use sched::layout::{KvLayout, LayoutError, PullBlocks, Resharding};
use sched::replica::Pull;
use sched::{LeaseId, PullId, Time, WorkerId};

/// All running transfers.
#[derive(Debug)]
pub(crate) struct Network {
    /// Rate of each end of a link.
    bytes_per_us: f64,
    flows: BTreeMap<FlowId, Flow>,
    at_end: BTreeMap<End, BTreeSet<FlowId>>,
    /// Time at which each transfer has all its bytes, if nothing changes.
    dues: BTreeSet<(Time, FlowId)>,
    moved_bytes: f64,
}

/// A pull, named by its reader and the reader's number.
pub(crate) type FlowId = (WorkerId, PullId);

/// A pull that has all its bytes, or whose giver is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) id: FlowId,
    pub(crate) giver: WorkerId,
    pub(crate) lease: LeaseId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Sends(WorkerId),
    Receives(WorkerId),
}

#[derive(Debug)]
struct Flow {
    giver: WorkerId,
    lease: LeaseId,
    left_bytes: f64,
    bytes_per_us: f64,
    at: Time,
    due: Time,
}

impl Network {
    pub(crate) fn new(bytes_per_second: u64) -> Network {
        let (flows, at_end, dues) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Network { bytes_per_us: bytes_per_second.max(1) as f64 / 1e6, flows, at_end, dues, moved_bytes: 0.0 }
    }

    pub(crate) fn start(&mut self, now: Time, Arrived { id, giver, lease }: Arrived, bytes: u64) {
        let end_of_time = Time(u64::MAX);
        let flow = Flow { giver, lease, left_bytes: bytes as f64, bytes_per_us: 0.0, at: now, due: end_of_time };
        self.flows.insert(id, flow);
        self.dues.insert((end_of_time, id));
        for end in ends(id, giver) {
            self.at_end.entry(end).or_default().insert(id);
        }
        self.retime(now, &ends(id, giver));
    }

    /// Ends a pull; transfers that shared its ends get its share.
    pub(crate) fn abort(&mut self, now: Time, id: FlowId) {
        self.remove(now, id);
    }

    /// Ends all transfers of a dead process; returns the pulls that read from it and are lost.
    pub(crate) fn lose(&mut self, now: Time, worker: WorkerId) -> Vec<Arrived> {
        let own: Vec<FlowId> = self.of(End::Receives(worker));
        for id in own {
            self.remove(now, id);
        }
        let read: Vec<FlowId> = self.of(End::Sends(worker));
        read.into_iter().filter_map(|id| self.remove(now, id)).collect()
    }

    /// Takes the next pull that has all its bytes by now.
    pub(crate) fn poll(&mut self, now: Time) -> Option<Arrived> {
        let (_, id) = self.dues.first().copied().filter(|(due, _)| *due <= now)?;
        self.remove(now, id)
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.dues.first().map(|(due, _)| *due)
    }

    pub(crate) fn moved_bytes(&self) -> u64 {
        self.moved_bytes.round() as u64
    }

    fn of(&self, end: End) -> Vec<FlowId> {
        self.at_end.get(&end).into_iter().flatten().copied().collect()
    }

    fn remove(&mut self, now: Time, id: FlowId) -> Option<Arrived> {
        self.advance(now, id);
        let flow = self.flows.remove(&id)?;
        self.dues.remove(&(flow.due, id));
        for end in ends(id, flow.giver) {
            if let Some(flows) = self.at_end.get_mut(&end) {
                flows.remove(&id);
            }
        }
        self.retime(now, &ends(id, flow.giver));
        Some(Arrived { id, giver: flow.giver, lease: flow.lease })
    }

    /// Gives every transfer at these ends its share of them.
    fn retime(&mut self, now: Time, ends_of: &[End; 2]) {
        let beside: BTreeSet<FlowId> = ends_of.iter().flat_map(|end| self.of(*end)).collect();
        for id in beside {
            self.advance(now, id);
            let Some(giver) = self.flows.get(&id).map(|flow| flow.giver) else { continue };
            let most = ends(id, giver).into_iter().map(|end| self.at_end.get(&end).map_or(0, BTreeSet::len)).max();
            let rate = self.bytes_per_us / most.unwrap_or(1).max(1) as f64;
            if let Some(flow) = self.flows.get_mut(&id) {
                self.dues.remove(&(flow.due, id));
                flow.bytes_per_us = rate;
                flow.due = Time(flow.at.0.saturating_add((flow.left_bytes / rate).ceil() as u64));
                self.dues.insert((flow.due, id));
            }
        }
    }

    /// Counts the bytes of a transfer that have moved by now.
    fn advance(&mut self, now: Time, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(&id) {
            let moved = (now.since(flow.at).us() as f64 * flow.bytes_per_us).min(flow.left_bytes);
            flow.left_bytes -= moved;
            flow.at = flow.at.max(now);
            self.moved_bytes += moved;
        }
    }
}

fn ends((reader, _): FlowId, giver: WorkerId) -> [End; 2] {
    [End::Sends(giver), End::Receives(reader)]
}

/// Bytes of a pull between two layouts, from the same plan that a live transport gets.
pub(crate) fn pull_bytes(giver: &KvLayout, reader: &KvLayout, pull: &Pull) -> Result<u64, LayoutError> {
    let blocks = PullBlocks {
        src: &pull.remote,
        dst: &pull.local,
        positions: pull.positions.clone(),
        layers: pull.layers.clone(),
    };
    let copies = Resharding::between(giver, reader)?.copies(&blocks)?;
    Ok(copies.iter().map(|copy| copy.bytes).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte per microsecond at each end.
    fn network() -> Network {
        Network::new(1_000_000)
    }

    fn pull(reader: u32, pull: u64, giver: u32) -> Arrived {
        Arrived { id: (WorkerId(reader), PullId(pull)), giver: WorkerId(giver), lease: LeaseId(pull) }
    }

    /// (time, pull) of all later arrivals.
    fn arrivals(network: &mut Network) -> Vec<(u64, u64)> {
        let mut arrived = Vec::new();
        while let Some(due) = network.next_timeout() {
            while let Some(pull) = network.poll(due) {
                arrived.push((due.0, pull.lease.0));
            }
        }
        arrived
    }

    #[test]
    fn a_transfer_alone_has_the_whole_rate_and_two_share_an_end() {
        let mut network = network();
        network.start(Time(0), pull(10, 1, 0), 100);
        network.start(Time(50), pull(10, 2, 1), 100);
        // The first has fifty bytes left: both run at half the rate until it is done, then the second runs alone.
        assert_eq!(arrivals(&mut network), [(150, 1), (200, 2)]);
        assert_eq!(network.moved_bytes(), 200);
    }

    #[test]
    fn a_giver_that_many_read_from_is_an_end_like_any_other_and_others_are_not_touched() {
        let mut network = network();
        for (reader, id) in [(10, 1), (11, 2), (12, 3), (13, 4)] {
            network.start(Time(0), pull(reader, id, 0), 100);
        }
        network.start(Time(0), pull(14, 5, 1), 100);
        assert_eq!(arrivals(&mut network), [(100, 5), (400, 1), (400, 2), (400, 3), (400, 4)]);
    }

    #[test]
    fn an_abort_gives_its_part_back_at_once() {
        let mut network = network();
        network.start(Time(0), pull(10, 1, 0), 100);
        network.start(Time(0), pull(10, 2, 1), 100);
        network.abort(Time(100), (WorkerId(10), PullId(1)));
        assert_eq!(arrivals(&mut network), [(150, 2)]);
        assert_eq!(network.moved_bytes(), 150);
        network.abort(Time(200), (WorkerId(10), PullId(1)));
    }

    #[test]
    fn what_a_lost_giver_was_read_for_is_told_and_its_readers_go_on_with_others() {
        let mut network = network();
        network.start(Time(0), pull(10, 1, 0), 100);
        network.start(Time(0), pull(10, 2, 1), 100);
        network.start(Time(0), pull(11, 3, 1), 100);
        assert_eq!(network.lose(Time(50), WorkerId(0)), [pull(10, 1, 0)]);
        assert_eq!(network.lose(Time(60), WorkerId(11)), []);
        // 25 bytes until 50, 5 until 60, then alone at both ends.
        assert_eq!(arrivals(&mut network), [(130, 2)]);
        assert!(network.flows.is_empty() && network.dues.is_empty());
    }
}
