//! Recounts everything that must hold between two events; for tests and for an operator's check.

use std::collections::{BTreeMap, BTreeSet};

use super::lane::Lane;
use super::leg::{LegRun, Stage};
use super::sequence::Place;
use super::timers::Timer;
use super::{Replica, unfinished_blocks};
use crate::block::Holdings;
use crate::handoff::TakeState;
use crate::{BlockId, SlotId};

impl Replica {
    /// Recounts blocks, slots, places and legs; the error says what does not add up. O(everything).
    pub fn check_invariants(&self) -> Result<(), String> {
        let (references, accesses, reads) = (self.held_references(), self.held_accesses(), self.held_reads());
        self.pool.check(&Holdings { references, accesses, reads })?;
        self.check_sequences()?;
        self.check_flights()?;
        self.check_legs()?;
        self.check_leases()?;
        self.check_slots()
    }

    fn held_references(&self) -> BTreeMap<BlockId, u32> {
        let held = self.sequences.iter().flat_map(|(_, s)| s.table.blocks().iter().chain(&s.spares));
        count(held.copied())
    }

    fn held_accesses(&self) -> BTreeMap<BlockId, u32> {
        let steps = self.lanes.iter().flat_map(Lane::all_holds).flat_map(|holds| &holds.touched);
        count(steps.chain(self.pulls.blocks()).copied())
    }

    fn held_reads(&self) -> BTreeMap<BlockId, u32> {
        count(self.lanes.iter().flat_map(Lane::all_holds).flat_map(|holds| &holds.read).copied())
    }

    fn check_sequences(&self) -> Result<(), String> {
        let mut filling = 0;
        for (key, sequence) in self.sequences.iter() {
            filling += unfinished_blocks(sequence);
            let placed = self.places.at(sequence.place).contains(&key);
            let owned = self.legs.get(&sequence.leg).is_some_and(|run| run.sequences.contains(&key));
            if !placed || !owned || sequence.members.is_empty() {
                return Err(format!("{key:?} is placed: {placed}, owned: {owned}, {:?}", sequence.members));
            }
            let (stored, submitted, blocks) = (sequence.computed, sequence.submitted, sequence.table.len());
            let waits_for_giver = match self.legs.get(&sequence.leg).map(|run| &run.stage) {
                Some(Stage::Take(taking)) => {
                    let unmet = taking.machine.state() == TakeState::Unmet;
                    if unmet && self.givers_up.contains(&taking.giver) {
                        return Err(format!("{} waits for a giver that is up", sequence.leg));
                    }
                    unmet
                }
                Some(Stage::Whole | Stage::Give(_)) | None => false,
            };
            if waits_for_giver != (sequence.place == Place::Unmet) {
                return Err(format!("{key:?} is {:?}, waits for its giver: {waits_for_giver}", sequence.place));
            }
            let reach = sequence.len() + sequence.awaited;
            if stored > sequence.len() || stored > submitted || submitted > reach.min(blocks * self.config.block_tokens)
            {
                return Err(format!("{key:?} has {stored} tokens stored and {submitted} submitted in {blocks} blocks"));
            }
        }
        match filling == self.filling_blocks {
            true => Ok(()),
            false => Err(format!("{filling} blocks are filling, but {} are counted", self.filling_blocks)),
        }
    }

    /// Checks that sequences and steps in flight agree.
    fn check_flights(&self) -> Result<(), String> {
        for lane in &self.lanes {
            if lane.flights.len() > lane.config.steps_in_flight as usize {
                return Err(format!("{} steps are in flight", lane.flights.len()));
            }
            let flights = lane.flights.iter().map(|flight| (&flight.parts, flight.living));
            for (parts, counted) in flights.chain(lane.course.iter().map(|course| (&course.parts, course.living))) {
                let living = parts.iter().filter(|part| self.sequences.lives(part.key)).count();
                if living != counted {
                    return Err(format!("{living} of {} parts live, {counted} are counted", parts.len()));
                }
            }
            if lane.course.as_ref().is_some_and(|course| course.living == 0) {
                return Err(format!("nobody lives in the course of {}", lane.id));
            }
        }
        for (key, sequence) in self.sequences.iter() {
            let lanes: Vec<_> =
                self.lanes.iter().map(|lane| lane.parts_of(key)).filter(|parts| !parts.is_empty()).collect();
            if lanes.len() > 1 {
                return Err(format!("{key:?} is in steps of {} lanes", lanes.len()));
            }
            let parts = lanes.into_iter().flatten().collect::<Vec<_>>();
            let awaited = parts.iter().filter(|part| !part.sampled.is_empty()).count();
            let submitted = parts.last().map_or(sequence.computed, |part| part.computed);
            let counted = (sequence.awaited as usize, sequence.submitted);
            if counted != (awaited, submitted) {
                return Err(format!("{key:?} counts {counted:?}, but {awaited} parts sample up to {submitted}"));
            }
        }
        Ok(())
    }

    fn check_legs(&self) -> Result<(), String> {
        let mut sequences = 0;
        for (leg, run) in &self.legs {
            sequences += run.sequences.len();
            let timed = self.timers.is_set(Timer::Deadline(*leg)) && self.timers.is_set(Timer::RequestLease(*leg));
            if run.sequences.is_empty() || !timed {
                return Err(format!("{leg} has {} sequences, timers are set: {timed}", run.sequences.len()));
            }
        }
        match sequences == self.sequences.iter().count() {
            true => Ok(()),
            false => Err(format!("legs name {sequences} sequences")),
        }
    }

    fn check_leases(&self) -> Result<(), String> {
        let (mut given, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for (leg, run) in &self.legs {
            match &run.stage {
                Stage::Whole | Stage::Give(None) => {}
                Stage::Give(Some(giving)) => drop(given.insert((giving.lease, *leg))),
                Stage::Take(taking) if !taking.machine.is_over() => {
                    taken.insert(((taking.lease, taking.giver), *leg));
                }
                Stage::Take(_) => {}
            }
        }
        let reserved = |leg| match self.legs.get(&leg).map(|run: &LegRun| &run.stage) {
            Some(Stage::Take(taking)) => taking.machine.may_read(),
            Some(Stage::Whole | Stage::Give(_)) | None => false,
        };
        if let Some(leg) = self.pulls.waiting().find(|leg| !reserved(*leg)) {
            return Err(format!("{leg} waits for its pull but could not read"));
        }
        self.pulls.check(self.config.pulls_per_giver_max)?;
        let given_index = self.given.iter().map(|(lease, leg)| (*lease, *leg)).collect::<BTreeSet<_>>();
        let taken_index = self.taken.iter().map(|(lease, leg)| (*lease, *leg)).collect::<BTreeSet<_>>();
        match (given, taken) == (given_index, taken_index) {
            true => Ok(()),
            false => Err("the leases of the legs are not those of the indices".to_owned()),
        }
    }

    fn check_slots(&self) -> Result<(), String> {
        let seated: Vec<SlotId> = self
            .sequences
            .iter()
            .flat_map(|(_, sequence)| sequence.members.iter().filter_map(|member| member.slot.map(|(slot, _)| slot)))
            .collect();
        let (free, named) = self.slots.counts();
        let distinct = seated.iter().collect::<BTreeSet<_>>().len();
        let total = self.config.sequences_max as usize;
        let held = self.lanes.iter().flat_map(Lane::all_holds).map(|holds| holds.named.len() as u32).sum::<u32>();
        if held != named {
            return Err(format!("steps name {held} slots of sequences that have ended, {named} are counted"));
        }
        match distinct == seated.len() && seated.len() + free == total {
            true => Ok(()),
            false => Err(format!("{} slots are taken ({distinct} distinct) and {free} free of {total}", seated.len())),
        }
    }
}

fn count(blocks: impl Iterator<Item = BlockId>) -> BTreeMap<BlockId, u32> {
    blocks.fold(BTreeMap::new(), |mut counts, block| {
        *counts.entry(block).or_insert(0) += 1;
        counts
    })
}
