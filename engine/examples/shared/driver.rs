//! Drives a backend with its caller's plans, two steps in flight, like a replica; knows no scheduler.
#![allow(dead_code, reason = "each example uses a part of it")]

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, bounded};
use engine::backend::{BackendEvent, BackendInfo};
use engine::model::ModelSpec;
use engine::{Config, Opened, open_backend};
use sched::replica::Progress;
use sched::{BlockId, Input, LaneId, SequenceRows, StepId, StepPlan, StepResult};

/// Tokens per KV block, the default of `serve`.
pub(crate) const BLOCK_TOKENS: u32 = 16;
const STEPS_IN_FLIGHT: usize = 2;
const STEP_DEADLINE: Duration = Duration::from_secs(300);

pub(crate) struct Driver {
    opened: Opened,
    woken: Receiver<()>,
    /// Steps submitted since the start.
    submitted: u64,
}

pub(crate) struct Ran {
    /// Seconds from the first submission to the end of the last step.
    pub(crate) seconds: f64,
    /// One result per plan.
    pub(crate) results: Vec<StepResult>,
}

impl Driver {
    pub(crate) fn open(config: &Config) -> Result<Driver> {
        let (wake, woken) = bounded(1);
        let notify = Arc::new(move || {
            let _already_woken = wake.try_send(());
        });
        Ok(Driver { opened: open_backend(config, notify)?, woken, submitted: 0 })
    }

    pub(crate) fn spec(&self) -> &ModelSpec {
        &self.opened.spec
    }

    pub(crate) fn describe(&self) -> &BackendInfo {
        self.opened.backend.describe()
    }

    pub(crate) fn run(&mut self, plans: impl IntoIterator<Item = StepPlan>) -> Result<Ran> {
        let began = Instant::now();
        let mut results = Vec::new();
        let mut in_flight = 0;
        for plan in plans {
            if in_flight == STEPS_IN_FLIGHT {
                results.push(self.wait_for_one()?);
                in_flight -= 1;
            }
            self.submitted += 1;
            self.opened.backend.submit(LaneId(0), StepId(self.submitted), plan, Progress::Untold)?;
            in_flight += 1;
        }
        for _ in 0..in_flight {
            results.push(self.wait_for_one()?);
        }
        Ok(Ran { seconds: began.elapsed().as_secs_f64(), results })
    }

    fn wait_for_one(&mut self) -> Result<StepResult> {
        loop {
            while let Some(event) = self.opened.backend.poll() {
                match event {
                    BackendEvent::Progress { .. } => {}
                    BackendEvent::Done { result: Ok(result), .. } => return Ok(result),
                    BackendEvent::Done { result: Err(failure), step, .. } => bail!("{step}: {failure}"),
                    BackendEvent::Stopped(failure) => bail!("the backend has stopped: {failure}"),
                }
            }
            let woken = self.woken.recv_timeout(STEP_DEADLINE);
            woken.with_context(|| format!("a step has not ended within {STEP_DEADLINE:?}"))?;
        }
    }
}

/// Adds rows at `positions` of the sequence whose blocks begin at `first_block`. The caller pushes their tokens.
pub(crate) fn push_rows(plan: &mut StepPlan, first_block: u32, positions: Range<u32>) {
    let blocks_start = plan.blocks.len() as u32;
    let rows_start = plan.sequences.last().map_or(0, |last| last.rows.end);
    plan.blocks.extend((0..positions.end.div_ceil(BLOCK_TOKENS)).map(|block| BlockId(first_block + block)));
    plan.sequences.push(SequenceRows {
        rows: rows_start..rows_start + (positions.end - positions.start),
        blocks: blocks_start..plan.blocks.len() as u32,
        first_position: positions.start,
        input: Input::Given,
    });
}
