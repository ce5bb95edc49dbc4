//! Rounds of samples, ours and llama.cpp's in turn, with the machine measured around each; knows no table.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::Result;

use crate::case::{Case, Weights};
use crate::ceilings::{Ceilings, Machine};
use crate::llama_cpp::LlamaCpp;
use crate::load::{Disturbance, Ticks};
use crate::models::Models;
use crate::options::Options;
use crate::ours::Ours;
use crate::statistics::median;

/// A sample is repeated if the machine's rates changed by more than this meanwhile.
const MOVED_MAX: f64 = 0.15;
/// A sample is repeated if other processes used more than this share of the processor meanwhile.
const OTHERS_MAX: f64 = 0.05;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) tokens: u32,
    pub(crate) seconds: f64,
}

#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) ours: Vec<Sample>,
    /// Samples of llama.cpp; empty without it.
    pub(crate) theirs: Vec<Sample>,
    pub(crate) ceilings: Vec<Ceilings>,
    pub(crate) disturbances: Vec<Disturbance>,
    /// Samples repeated because the machine was not steady.
    pub(crate) repeated: usize,
    /// Samples that count although the machine was not steady.
    pub(crate) unsteady: usize,
    /// Reason why we could not run the case.
    pub(crate) refused: Option<String>,
}

pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) models: &'a Models,
    pub(crate) machine: &'a Machine,
    pub(crate) peer: Option<&'a LlamaCpp>,
}

struct Turn {
    ours: Sample,
    theirs: Option<Sample>,
    ceilings: Vec<Ceilings>,
    disturbance: Disturbance,
}

/// Our engine with one format of weights, or the reason why it does not start.
type Opened = Result<RefCell<Ours>, String>;

impl Bench<'_> {
    /// Every round runs every case; rounds alternate which program goes first.
    pub(crate) fn run(&self) -> Result<Vec<Measured>> {
        let began = Instant::now();
        let engines = [(Weights::Bf16, self.open(Weights::Bf16)), (Weights::Int8, self.open(Weights::Int8))];
        let mut results: Vec<Measured> = self.options.cases.iter().map(|case| Measured::new(*case)).collect();
        for round in 0..self.options.rounds {
            if self.is_over(began, round) {
                println!("stopped after {round} of {} rounds: another one would not end in time", self.options.rounds);
                break;
            }
            for measured in &mut results {
                let engine = engines.iter().find(|(weights, _)| *weights == measured.case.weights);
                match engine.and_then(|(_, opened)| opened.as_ref()) {
                    None => {}
                    Some(Err(problem)) => measured.refused = Some(problem.clone()),
                    Some(Ok(ours)) => self.round(round, measured, &mut ours.borrow_mut())?,
                }
            }
        }
        Ok(results)
    }

    /// True if another round, of the mean length so far, would end after the limit.
    fn is_over(&self, began: Instant, rounds_done: usize) -> bool {
        let (spent, round) = (began.elapsed(), rounds_done as u32);
        rounds_done > 0 && self.options.limit.is_some_and(|limit| spent + spent / round > limit)
    }

    /// Opens our engine with these weights; `None` if no case needs it.
    fn open(&self, weights: Weights) -> Option<Opened> {
        self.options.cases.iter().find(|case| case.weights == weights)?;
        let config = self.options.config(&self.models.directory, weights);
        let opened = config.and_then(|config| Ours::open(&config, self.options.steps));
        Some(opened.map(RefCell::new).map_err(|error| format!("{error:#}")))
    }

    fn round(&self, round: usize, measured: &mut Measured, ours: &mut Ours) -> Result<()> {
        let case = measured.case;
        let mut turn = self.turn(round, &case, ours)?;
        for _ in 0..self.options.repeats {
            if turn.is_steady(&case) {
                break;
            }
            measured.repeated += 1;
            let again = self.turn(round, &case, ours)?;
            if again.unsteadiness(&case) < turn.unsteadiness(&case) {
                turn = again;
            }
        }
        if !turn.is_steady(&case) {
            measured.unsteady += 1;
        }
        println!("{}", progress(round, &case, &turn));
        measured.ours.push(turn.ours);
        measured.theirs.extend(turn.theirs);
        measured.ceilings.extend(turn.ceilings);
        measured.disturbances.push(turn.disturbance);
        Ok(())
    }

    fn turn(&self, round: usize, case: &Case, ours: &mut Ours) -> Result<Turn> {
        let theirs = || self.peer.map(|peer| peer.sample(case, self.models.gguf(case))).transpose();
        let began = Ticks::now()?;
        let mut ceilings = vec![self.machine.measure()?];
        let (ours, theirs) = if round.is_multiple_of(2) {
            let ours = ours.sample(case)?;
            ceilings.push(self.machine.measure()?);
            (ours, theirs()?)
        } else {
            let theirs = theirs()?;
            ceilings.push(self.machine.measure()?);
            (ours.sample(case)?, theirs)
        };
        ceilings.push(self.machine.measure()?);
        Ok(Turn { ours, theirs, ceilings, disturbance: Ticks::now()?.since(began) })
    }
}

impl Turn {
    fn is_steady(&self, case: &Case) -> bool {
        self.unsteadiness(case) <= 1.0
    }

    /// Worst disturbance of the turn, relative to what is tolerated.
    fn unsteadiness(&self, case: &Case) -> f64 {
        (Ceilings::moved(&self.ceilings, case) / MOVED_MAX).max(self.disturbance.others / OTHERS_MAX)
    }
}

impl Sample {
    pub(crate) fn tokens_per_s(&self) -> f64 {
        f64::from(self.tokens) / self.seconds
    }
}

impl Measured {
    fn new(case: Case) -> Measured {
        Measured {
            case,
            ours: Vec::new(),
            theirs: Vec::new(),
            ceilings: Vec::new(),
            disturbances: Vec::new(),
            repeated: 0,
            unsteady: 0,
            refused: None,
        }
    }

    pub(crate) fn our_seconds(&self) -> f64 {
        median(self.ours.iter().map(|sample| sample.seconds))
    }
}

fn progress(round: usize, case: &Case, turn: &Turn) -> String {
    let theirs = turn.theirs.map_or_else(String::new, |sample| format!(", llama.cpp {:.1}", sample.tokens_per_s()));
    let ours = turn.ours.tokens_per_s();
    let at = Ceilings::median(&turn.ceilings);
    let (read, multiply) = (at.read_bytes_per_s / 1e9, at.bf16_flops_per_s / 1e9);
    let moved = 100.0 * Ceilings::moved(&turn.ceilings, case);
    let (others, stolen) = (100.0 * turn.disturbance.others, 100.0 * turn.disturbance.stolen);
    format!(
        "round {}, {}: Baton {ours:.1}{theirs} tokens/s; machine {read:.1} GB/s, {multiply:.0} GFLOP/s, moved {moved:.0} %; \
         others used {others:.0} %, the host took {stolen:.0} %",
        round + 1,
        case.name
    )
}
