//! Choices of experts: which expert computes which rows, and in which order; knows no weights and no product.
//!
//! Rows are *grouped*: all rows of expert 0 in ascending order, then those of expert 1, and so on. A grouped row is one
//! choice of one row. Source of the router: Shazeer et al., "Outrageously Large Neural Networks" (2017), as published
//! with Mixtral and Qwen3-MoE.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checks::{at_most, below, same};
use crate::numerics::{LOG2_E, exp2};
use crate::{KernelError, RoutesSize};

/// Rule by which the logits of a model's router become experts and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Experts to choose from.
    pub experts: usize,
    /// Experts per row, at most `experts`.
    pub per_row: usize,
    /// Rule of the weights.
    pub weights: ExpertWeights,
}

/// Rule of the weights of the chosen experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertWeights {
    /// Softmax over all experts.
    AmongAll,
    /// Softmax over the chosen experts; the weights of a row sum to 1.
    AmongChosen,
}

/// Experts that the rows of one step chose, in host memory.
#[derive(Debug, Clone)]
pub struct Routes {
    routing: Routing,
    rows_max: usize,
    rows: usize,
    /// `[rows][per_row]`, ascending inside a row.
    experts: Vec<u32>,
    /// `[rows][per_row]`: weight of each choice.
    weights: Vec<f32>,
    /// `[rows][per_row]`: grouped row of each choice.
    grouped: Vec<u32>,
    /// `[rows * per_row]`: source row of each grouped row.
    sources: Vec<u32>,
    /// `[experts + 1]`: first grouped row of each expert.
    starts: Vec<usize>,
}

impl Routing {
    /// Refuses 0 experts per row and more than there are.
    pub fn validate(&self) -> Result<(), KernelError> {
        if self.per_row == 0 || self.per_row > self.experts {
            let what = format!("{} of {} experts per row cannot be chosen", self.per_row, self.experts);
            return Err(KernelError::Invalid { op: "routes", what });
        }
        Ok(())
    }

    /// Computes the weights of `chosen`, ascending experts, from all `logits` of the row: `exp(logit − greatest)` over
    /// the sum of such terms from left to right.
    pub(crate) fn weigh(&self, logits: &[f32], chosen: &[u32], weights: &mut [f32]) {
        let among_chosen = chosen.iter().map(|expert| logits[*expert as usize]);
        // The greatest of all is among the chosen.
        let greatest =
            among_chosen.clone().fold(f32::NEG_INFINITY, |greatest, v| if v > greatest { v } else { greatest });
        let term = |logit: f32| exp2((logit - greatest) * LOG2_E);
        let sum: f32 = match self.weights {
            ExpertWeights::AmongAll => logits.iter().fold(0.0, |sum, logit| sum + term(*logit)),
            ExpertWeights::AmongChosen => among_chosen.clone().fold(0.0, |sum, logit| sum + term(logit)),
        };
        for (weight, logit) in weights.iter_mut().zip(among_chosen) {
            *weight = term(logit) / sum;
        }
    }
}

/// Number of rows that each expert of each layer has computed, in host memory.
#[derive(Debug, Clone)]
pub struct HostCounts {
    experts: usize,
    /// `[layers][experts]`.
    counts: Vec<u64>,
}

impl HostCounts {
    pub(crate) fn new(layers: usize, experts: usize) -> Self {
        Self { experts, counts: vec![0; layers * experts] }
    }

    pub(crate) fn add(&mut self, routes: &Routes, layer: usize) -> Result<(), KernelError> {
        let op = "count_choices";
        same(op, "experts", routes.routing.experts, self.experts)?;
        below(op, "layer", layer, self.counts.len() / self.experts.max(1))?;
        for (expert, count) in self.counts[layer * self.experts..][..self.experts].iter_mut().enumerate() {
            *count += routes.of_expert(expert).len() as u64;
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, totals: &[AtomicU64]) -> Result<(), KernelError> {
        same("take_counts", "totals", self.counts.len(), totals.len())?;
        for (count, total) in self.counts.iter_mut().zip(totals).filter(|(count, _)| **count > 0) {
            total.fetch_add(std::mem::take(count), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Routes {
    pub(crate) fn new(rows_max: usize, routing: Routing) -> Result<Self, KernelError> {
        routing.validate()?;
        let starts = vec![0; routing.experts + 1];
        let (experts, weights, grouped, sources) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { routing, rows_max, rows: 0, experts, weights, grouped, sources, starts })
    }

    /// Grouped rows of an expert.
    #[must_use]
    pub fn of_expert(&self, expert: usize) -> Range<usize> {
        self.starts[expert]..self.starts[expert + 1]
    }

    /// Source row of each grouped row.
    #[must_use]
    pub fn sources(&self) -> &[u32] {
        &self.sources
    }

    /// Choices of a row in the order of their experts: grouped row and weight.
    pub fn choices(&self, row: usize) -> impl Iterator<Item = (usize, f32)> {
        let choices = row * self.routing.per_row..(row + 1) * self.routing.per_row;
        let grouped = self.grouped[choices.clone()].iter().map(|grouped| *grouped as usize);
        grouped.zip(self.weights[choices].iter().copied())
    }

    /// Experts and weights of all rows, `[rows][per_row]`; experts ascend inside a row.
    pub(crate) fn choices_mut(&mut self) -> (&mut [u32], &mut [f32]) {
        (&mut self.experts, &mut self.weights)
    }

    /// Sorts the choices by expert (counting sort, stable in rows).
    pub(crate) fn group(&mut self) {
        self.starts.fill(0);
        for expert in &self.experts {
            self.starts[*expert as usize + 1] += 1;
        }
        for expert in 0..self.routing.experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        let mut next = self.starts.clone();
        for (choice, expert) in self.experts.iter().enumerate() {
            let place = &mut next[*expert as usize];
            self.grouped[choice] = *place as u32;
            self.sources[*place] = (choice / self.routing.per_row) as u32;
            *place += 1;
        }
    }
}

impl RoutesSize for Routes {
    fn routing(&self) -> Routing {
        self.routing
    }
    fn rows(&self) -> usize {
        self.rows
    }
    /// The choices are unspecified until `choices_mut` is filled and `group` is called.
    fn set_rows(&mut self, op: &'static str, rows: usize) -> Result<(), KernelError> {
        at_most(op, "rows", rows, self.rows_max)?;
        self.rows = rows;
        let choices = self.grouped_rows();
        self.experts.resize(choices, 0);
        self.weights.resize(choices, 0.0);
        self.grouped.resize(choices, 0);
        self.sources.resize(choices, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTING: Routing = Routing { experts: 4, per_row: 2, weights: ExpertWeights::AmongChosen };

    #[test]
    fn rows_are_grouped_by_expert_in_their_order() {
        let mut routes = Routes::new(3, ROUTING).unwrap();
        routes.set_rows("route", 3).unwrap();
        routes.choices_mut().0.copy_from_slice(&[1, 3, 0, 1, 1, 3]);
        routes.choices_mut().1.copy_from_slice(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
        routes.group();
        assert_eq!([0, 1, 2, 3].map(|expert| routes.of_expert(expert)), [0..1, 1..4, 4..4, 4..6]);
        assert_eq!(routes.sources(), [1, 0, 1, 2, 0, 2]);
        let choices: Vec<Vec<(usize, f32)>> = (0..3).map(|row| routes.choices(row).collect()).collect();
        assert_eq!(choices, [[(1, 0.1), (4, 0.2)], [(0, 0.3), (2, 0.4)], [(3, 0.5), (5, 0.6)]]);
        assert!(routes.set_rows("route", 4).is_err());
    }

    #[test]
    fn weights_are_a_softmax() {
        let logits = [0.5f32, 2.0, -1.0, 1.0];
        let exact = |among: &[usize], expert: usize| {
            let sum: f64 = among.iter().map(|e| f64::from(logits[*e]).exp()).sum();
            f64::from(logits[expert]).exp() / sum
        };
        for (weights, among) in [(ExpertWeights::AmongAll, &[0, 1, 2, 3][..]), (ExpertWeights::AmongChosen, &[1, 3])] {
            let mut found = [0.0; 2];
            Routing { weights, ..ROUTING }.weigh(&logits, &[1, 3], &mut found);
            for (found, expert) in found.iter().zip([1, 3]) {
                assert!((f64::from(*found) - exact(among, expert)).abs() < 1e-6, "{weights:?} {expert}: {found}");
            }
        }
    }

    #[test]
    fn impossible_routings_are_refused() {
        for per_row in [0, 5] {
            assert!(Routes::new(1, Routing { per_row, ..ROUTING }).is_err());
        }
    }
}
