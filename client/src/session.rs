//! Session: a workload, its servers and its targets become a report. Knows no command line and no files.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Result;
use crate::report::{
    BestRate, Measured, Report, SCHEMA, SloClasses, SweepPoint, SweepReport, TargetReport, WorkloadReport, ratios,
    warnings,
};
use crate::run::{Endpoint, LEVELS, Limits, Pace, Point, Progress, Record, Slices, Stop, Sweep, SweepBounds, Taken};
use crate::workload::{Rerun, Row, TokenRange, Workload, WorkloadStats};

/// Most requests of one point of a sweep.
const POINT_ROWS_MAX: usize = 200_000;

/// Everything that a run needs to know.
#[derive(Debug)]
pub struct Session {
    /// Servers; all get the same rows.
    pub endpoints: Vec<Endpoint>,
    /// Requests.
    pub workload: Workload,
    /// Open or closed loop; a sweep is always open.
    pub pace: Pace,
    /// Bounds of the run.
    pub limits: Limits,
    /// First requests, which are sent and left out.
    pub warm_up: WarmUp,
    /// Targets.
    pub slos: SloClasses,
    /// Slices, if there are several servers.
    pub slices: usize,
    /// Search for the highest rate instead of one run.
    pub sweep: Option<SweepSettings>,
    /// Token ids of the prompts.
    pub token_range: TokenRange,
    /// Seed of the prompts.
    pub seed: u64,
    /// Counts for a progress bar.
    pub progress: Arc<Progress>,
}

/// First requests, which are sent and left out of the report: both bounds count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WarmUp {
    /// Number of requests.
    pub requests: usize,
    /// Microseconds from the start.
    pub us: u64,
}

/// Settings of a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SweepSettings {
    /// Rates and number of points.
    pub bounds: SweepBounds,
    /// Microseconds per point.
    pub duration_us: u64,
}

/// Report with the records that it was made of.
#[derive(Debug)]
pub struct Outcome {
    /// Report.
    pub report: Report,
    /// Records by target, or by point of a sweep.
    pub records: Vec<Recorded>,
}

/// Records of one target or point.
#[derive(Debug)]
pub struct Recorded {
    /// Name.
    pub name: String,
    /// Records in order of their rows.
    pub records: Vec<Record>,
    /// Rows of the warm-up.
    pub warm_up: usize,
}

impl Recorded {
    /// Records without those of the warm-up.
    #[must_use]
    pub fn counted(&self) -> &[Record] {
        &self.records[self.records.partition_point(|record| record.row < self.warm_up)..]
    }
}

fn rows_begun(records: &[Recorded]) -> usize {
    records.iter().filter_map(|recorded| Some(recorded.records.last()?.row + 1)).max().unwrap_or(0)
}

impl WarmUp {
    fn rows(self, rows: &[Row]) -> usize {
        let in_time = rows.partition_point(|row| row.at_us < self.us);
        in_time.max(self.requests).min(rows.len())
    }
}

impl Session {
    /// Sends the requests and reports. Ends early, with a report of what was done, if `stop` asks for it.
    pub async fn run(&self, stop: &Stop) -> Result<Outcome> {
        let begun_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (targets, sweep, records) = match self.sweep {
            Some(settings) => self.sweep(settings, stop).await?,
            None => self.once(stop).await?,
        };
        let (pace, concurrency) = match self.pace {
            _ if self.sweep.is_some() => ("sweep", None),
            Pace::Open => ("open", None),
            Pace::Closed { concurrency, .. } => ("closed", Some(concurrency.get())),
        };
        // The duration of a closed loop ends somewhere among the rows.
        let rows = if concurrency.is_some() { rows_begun(&records) } else { self.workload.rows.len() };
        let used = WorkloadStats::of(&self.workload, rows);
        let workload = WorkloadReport { origin: self.workload.origin.clone(), used, pace, concurrency };
        let report = Report {
            schema: SCHEMA,
            begun_unix_s,
            interrupted: stop.is_asked(),
            workload,
            slo: self.slos.all().to_vec(),
            ratios: ratios(&targets),
            warnings: targets.iter().flat_map(|target| warnings(&target.name, &target.measured)).collect(),
            targets,
            sweep,
        };
        Ok(Outcome { report, records })
    }

    async fn once(&self, stop: &Stop) -> Result<(Vec<TargetReport>, Option<SweepReport>, Vec<Recorded>)> {
        let count = if self.endpoints.len() > 1 { self.slices } else { 1 };
        let slices = self.slices(self.workload.rows.clone().into(), self.pace, count, self.seed);
        let warm_up = self.warm_up.rows(&self.workload.rows);
        let taken = slices.run(stop).await?;
        let done = self.endpoints.iter().zip(taken);
        let (targets, records) = done.map(|(endpoint, taken)| self.report(endpoint, taken, warm_up)).unzip();
        Ok((targets, None, records))
    }

    /// Measures points until the search ends. The report of the target is that of the best point.
    async fn sweep(
        &self,
        settings: SweepSettings,
        stop: &Stop,
    ) -> Result<(Vec<TargetReport>, Option<SweepReport>, Vec<Recorded>)> {
        let [endpoint] = &self.endpoints[..] else {
            return Err(crate::Error::Settings("a sweep needs exactly one target".to_owned()));
        };
        if !self.slos.all().iter().any(crate::report::SloClass::has_targets) {
            return Err(crate::Error::Settings("a sweep needs targets to meet: give --slo".to_owned()));
        }
        let mut sweep = Sweep::new(settings.bounds)?;
        let (mut points, mut records, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(rate_per_s) = sweep.next_rate().filter(|_| !stop.is_asked()) {
            let rerun = Rerun { rate_per_s, duration_us: settings.duration_us, rows_max: POINT_ROWS_MAX };
            let rows = rerun.rows(&self.workload);
            let warm_up = self.warm_up.rows(&rows);
            // Each point has prompts of its own: the prefix cache holds nothing of the point before.
            let seed = self.seed.wrapping_add(points.len() as u64 + 1);
            let taken = self.slices(rows.into(), Pace::Open, 1, seed).run(stop).await?;
            let Some(taken) = taken.into_iter().next() else { break };
            let (target, recorded) = self.report(endpoint, taken, warm_up);
            let name = format!("{}@{rate_per_s:.3}/s", endpoint.name);
            records.push(Recorded { name, ..recorded });
            // A point that was broken off says nothing about its rate.
            if !stop.is_asked() {
                sweep.on(Point { rate_per_s, attainment: target.measured.attainment });
                points.push(SweepPoint { rate_per_s, measured: target.measured.clone() });
            }
            targets.push((rate_per_s, target));
        }
        let best_rate = sweep.best(LEVELS[0]).map(|point| point.rate_per_s);
        let at_best = targets.iter().position(|(rate, _)| Some(*rate) == best_rate).unwrap_or(0);
        let targets = targets.into_iter().skip(at_best).take(1).map(|(_, target)| target).collect();
        let best = LEVELS.map(|attainment| BestRate {
            attainment,
            rate_per_s: sweep.best(attainment).map(|point| point.rate_per_s),
            missed_at_per_s: Some(sweep.lowest_failing(attainment)).filter(|rate| rate.is_finite()),
        });
        let duration_s = settings.duration_us as f64 / 1e6;
        Ok((targets, Some(SweepReport { duration_s, points, best: best.to_vec() }), records))
    }

    fn slices(&self, rows: Arc<[Row]>, pace: Pace, count: usize, salt: u64) -> Slices {
        Slices {
            endpoints: self.endpoints.clone(),
            rows,
            block_tokens: self.workload.block_tokens,
            count,
            token_range: self.token_range,
            salt,
            pace,
            limits: self.limits,
            progress: Arc::clone(&self.progress),
        }
    }

    fn report(&self, endpoint: &Endpoint, taken: Taken, warm_up: usize) -> (TargetReport, Recorded) {
        let report = TargetReport {
            name: endpoint.name.clone(),
            url: endpoint.client.target().to_string(),
            model: endpoint.body.model.clone(),
            path: endpoint.body.api.path().to_owned(),
            measured: Measured::of(&taken.records, taken.span_us, &self.slos, warm_up),
        };
        (report, Recorded { name: endpoint.name.clone(), records: taken.records, warm_up })
    }
}
