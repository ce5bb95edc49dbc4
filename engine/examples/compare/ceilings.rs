//! Rates that the machine reaches right now, on as many threads as the programs use; knows no program.

use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use kernels::ceiling::{Factors, MultiplyPass, ReadPass};
use kernels::{KernelError, KernelSet, Placement, Pool};

use crate::case::{Case, Cost, Phase, Weights};
use crate::statistics::{median, range};

/// Passes whose median is one measurement: a quarter of a second, so that a neighbour's burst does not decide it.
const PASSES: usize = 21;
/// Several times the largest caches: servers have shared ones of 480 MiB.
const READ_BYTES: usize = 1 << 30;

pub(crate) struct Machine {
    pool: Pool,
    read: ReadPass,
    bf16: MultiplyPass,
    int8: Option<MultiplyPass>,
}

/// Rates of the machine at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ceilings {
    pub(crate) read_bytes_per_s: f64,
    pub(crate) bf16_flops_per_s: f64,
    /// 0 if the processor has no int8 instruction.
    pub(crate) int8_flops_per_s: f64,
}

impl Machine {
    /// Uses the multiply-adds of `set`.
    pub(crate) fn new(threads: usize, set: KernelSet) -> Result<Machine> {
        Ok(Machine {
            pool: Pool::new(&Placement::Cores((0..threads).collect()))?,
            read: ReadPass::new(READ_BYTES)?,
            bf16: MultiplyPass::new(Factors::Bf16, set)
                .with_context(|| format!("no known peak of kernel set {set}"))?,
            int8: MultiplyPass::new(Factors::Int8, set),
        })
    }

    /// Runs all passes on a pinned thread of their own, because programs started later would inherit the pinning.
    pub(crate) fn measure(&self) -> Result<Ceilings> {
        std::thread::scope(|scope| {
            let measured = scope.spawn(|| self.measure_here()).join();
            measured.map_err(|_| anyhow!("measuring the machine panicked"))?
        })
    }

    fn measure_here(&self) -> Result<Ceilings> {
        self.pool.pin_caller()?;
        let read = median_seconds(|| self.read.run(&self.pool).map(|_| ()))?;
        let bf16 = median_seconds(|| self.bf16.run(&self.pool))?;
        let int8_flops_per_s = match &self.int8 {
            Some(pass) => pass.operations() as f64 / median_seconds(|| pass.run(&self.pool))?,
            None => 0.0,
        };
        Ok(Ceilings {
            read_bytes_per_s: self.read.bytes() as f64 / read,
            bf16_flops_per_s: self.bf16.operations() as f64 / bf16,
            int8_flops_per_s,
        })
    }
}

fn median_seconds(mut pass: impl FnMut() -> Result<(), KernelError>) -> Result<f64> {
    let mut seconds = [0.0; PASSES];
    for slot in &mut seconds {
        let began = Instant::now();
        pass()?;
        *slot = began.elapsed().as_secs_f64();
    }
    Ok(median(seconds))
}

impl Ceilings {
    pub(crate) fn median(all: &[Ceilings]) -> Ceilings {
        let of = |rate: fn(&Ceilings) -> f64| median(all.iter().map(rate));
        Ceilings {
            read_bytes_per_s: of(|at| at.read_bytes_per_s),
            bf16_flops_per_s: of(|at| at.bf16_flops_per_s),
            int8_flops_per_s: of(|at| at.int8_flops_per_s),
        }
    }

    /// Change of the rates that bound a case over several measurements: largest over smallest, minus one.
    pub(crate) fn moved(all: &[Ceilings], case: &Case) -> f64 {
        let spread = |rate: fn(&Ceilings) -> f64| {
            let (low, high) = range(all.iter().map(rate));
            high / low - 1.0
        };
        let (read, multiply) = (spread(|at| at.read_bytes_per_s), spread(|at| at.bf16_flops_per_s));
        match case.phase {
            Phase::Prefill { .. } => multiply,
            Phase::Decode { batch: 1, .. } => read,
            Phase::Decode { .. } => read.max(multiply),
        }
    }

    /// Least seconds for the reads.
    pub(crate) fn read_s(&self, cost: &Cost) -> f64 {
        (cost.weight_bytes + cost.kv_bytes) / self.read_bytes_per_s
    }

    /// Least seconds for the products.
    pub(crate) fn multiply_s(&self, cost: &Cost, weights: Weights) -> f64 {
        let products = match weights {
            Weights::Bf16 => self.bf16_flops_per_s,
            Weights::Int8 if self.int8_flops_per_s > 0.0 => self.int8_flops_per_s,
            Weights::Int8 => self.bf16_flops_per_s,
        };
        cost.product_flops / products + cost.attention_flops / self.bf16_flops_per_s
    }
}
