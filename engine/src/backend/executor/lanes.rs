//! Choice of the lane that runs its next layer: the one that has used the least time for its share; knows no step.
//!
//! Weighted fair queueing by virtual time (Demers, Keshav, Shenker, 1989), one layer at a time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sched::LaneId;

/// Work of all lanes; inside a lane in order.
pub(super) struct Lanes<W> {
    lanes: BTreeMap<LaneId, Lane<W>>,
}

struct Lane<W> {
    share: f64,
    /// Seconds used divided by the share.
    virtual_s: f64,
    work: VecDeque<W>,
}

impl<W> Lanes<W> {
    pub(super) fn new() -> Lanes<W> {
        Lanes { lanes: BTreeMap::new() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lanes.values().all(|lane| lane.work.is_empty())
    }

    pub(super) fn push(&mut self, lane: LaneId, work: W) {
        let floor = self.floor();
        let lane = self.lane(lane);
        if lane.work.is_empty() {
            // An idle lane saves no time up.
            lane.virtual_s = lane.virtual_s.max(floor);
        }
        lane.work.push_back(work);
    }

    pub(super) fn set_share(&mut self, lane: LaneId, share: f32) {
        const SHARE_MIN: f64 = 0.01;
        self.lane(lane).share = f64::from(share).clamp(SHARE_MIN, 1.0);
    }

    /// Returns the lane whose turn it is.
    pub(super) fn next(&self) -> Option<LaneId> {
        let waiting = self.lanes.iter().filter(|(_, lane)| !lane.work.is_empty());
        waiting.min_by(|a, b| a.1.virtual_s.total_cmp(&b.1.virtual_s)).map(|(id, _)| *id)
    }

    pub(super) fn front(&mut self, lane: LaneId) -> Option<&mut W> {
        self.lanes.get_mut(&lane)?.work.front_mut()
    }

    pub(super) fn pop(&mut self, lane: LaneId) -> Option<W> {
        self.lanes.get_mut(&lane)?.work.pop_front()
    }

    pub(super) fn charge(&mut self, lane: LaneId, used: Duration) {
        let lane = self.lane(lane);
        lane.virtual_s += used.as_secs_f64() / lane.share;
    }

    fn lane(&mut self, lane: LaneId) -> &mut Lane<W> {
        self.lanes.entry(lane).or_insert(Lane { share: 1.0, virtual_s: 0.0, work: VecDeque::new() })
    }

    fn floor(&self) -> f64 {
        let busy = self.lanes.values().filter(|lane| !lane.work.is_empty());
        let floor = busy.map(|lane| lane.virtual_s).fold(f64::INFINITY, f64::min);
        if floor.is_finite() { floor } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_shares_and_order_inside_a_lane_holds() {
        let mut lanes = Lanes::new();
        lanes.set_share(LaneId(0), 0.75);
        lanes.set_share(LaneId(1), 0.25);
        for work in 0..400 {
            lanes.push(LaneId((work % 2) as u8), work / 2);
        }
        let mut ran: BTreeMap<LaneId, Vec<u32>> = BTreeMap::new();
        for _ in 0..200 {
            let lane = lanes.next().unwrap();
            ran.entry(lane).or_default().push(lanes.pop(lane).unwrap());
            lanes.charge(lane, Duration::from_micros(100));
        }
        let (first, second) = (&ran[&LaneId(0)], &ran[&LaneId(1)]);
        assert!((149..=151).contains(&first.len()), "{} of 200 turns", first.len());
        assert!(first.is_sorted() && second.is_sorted());
    }

    #[test]
    fn an_idle_lane_saves_nothing_up() {
        let mut lanes = Lanes::new();
        lanes.push(LaneId(0), 0);
        lanes.charge(LaneId(0), Duration::from_secs(100));
        lanes.push(LaneId(1), 0);
        lanes.charge(LaneId(1), Duration::from_micros(1));
        assert_eq!(lanes.next(), Some(LaneId(0)));
    }
}
