//! Course: one pass over rows against one server, in an open or a closed loop. Knows no report.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::body::Bodies;
use super::failure::{Failure, FailureKind};
use super::pacer::{Due, Pacer};
use super::progress::Progress;
use super::record::Record;
use super::request::{Phase, Request, since_us};
use super::stop::Stop;
use crate::Result;
use crate::http::Client;
use crate::workload::Row;

/// Time between the start of a course and its first request, in which the first body is written.
const LEAD: Duration = Duration::from_millis(20);

/// Way in which requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At the times of the rows, whatever the others do.
    Open,
    /// So many at a time; the times of the rows do not count.
    Closed {
        /// Requests in flight.
        concurrency: NonZeroUsize,
        /// Time after which no further request is sent.
        duration: Option<Duration>,
    },
}

/// Bounds of a course.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most requests in flight; one that is due beyond is recorded as not sent.
    pub in_flight_max: usize,
    /// Longest time of a request.
    pub deadline: Duration,
    /// Longest time after the last request was sent.
    pub drain: Duration,
}

/// Course before it begins.
#[derive(Debug)]
pub struct Course {
    /// Server.
    pub client: Client,
    /// Requests in order of time.
    pub rows: Arc<[Row]>,
    /// Writer of their bodies.
    pub bodies: Arc<Bodies>,
    /// Open or closed loop.
    pub pace: Pace,
    /// Bounds.
    pub limits: Limits,
    /// Counts for others.
    pub progress: Arc<Progress>,
}

/// Requests of a course that run, and records of those that have ended.
struct Running {
    start: Instant,
    tasks: JoinSet<Record>,
    records: Vec<Record>,
    phase: watch::Sender<Phase>,
}

/// Sends all requests of the course; returns their records in order of their rows. Ends early if `stop` asks for it,
/// and at the latest when the time to drain is over.
pub async fn run(course: &Course, stop: &Stop) -> Result<Vec<Record>> {
    course.progress.plan(course.rows.len());
    let (phase, _) = watch::channel(Phase::GoOn);
    let start = Instant::now() + LEAD;
    let mut running = Running { start, tasks: JoinSet::new(), records: Vec::with_capacity(course.rows.len()), phase };
    match course.pace {
        Pace::Open => course.send_on_time(&mut running, stop).await?,
        Pace::Closed { concurrency, duration } => {
            course.send_in_turn(&mut running, stop, concurrency, duration).await;
        }
    }
    course.drain(&mut running, stop).await;
    running.records.sort_by_key(|record| record.row);
    Ok(running.records)
}

impl Course {
    async fn send_on_time(&self, running: &mut Running, stop: &Stop) -> Result<()> {
        let mut pacer = Pacer::start(Arc::clone(&self.rows), Arc::clone(&self.bodies), running.start)?;
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => return Ok(()),
                due = pacer.due.recv() => match due {
                    Some(due) if running.tasks.len() < self.limits.in_flight_max => self.send(running, due),
                    Some(due) => self.leave_out(running, &due),
                    None => return Ok(()),
                },
                Some(ended) = running.tasks.join_next(), if !running.tasks.is_empty() => self.keep(running, ended),
            }
        }
    }

    async fn send_in_turn(
        &self,
        running: &mut Running,
        stop: &Stop,
        concurrency: NonZeroUsize,
        duration: Option<Duration>,
    ) {
        tokio::time::sleep(LEAD).await;
        for (index, row) in self.rows.iter().enumerate() {
            let body = self.bodies.body(index, row);
            while running.tasks.len() >= concurrency.get() {
                tokio::select! {
                    () = stop.asked() => return,
                    Some(ended) = running.tasks.join_next() => self.keep(running, ended),
                }
            }
            let now = Instant::now();
            if stop.is_asked() || duration.is_some_and(|duration| now - running.start >= duration) {
                return;
            }
            // Nobody planned a time: it is due now.
            self.send(running, Due { row: index, planned_us: since_us(running.start, now), body });
        }
    }

    async fn drain(&self, running: &mut Running, stop: &Stop) {
        let end = tokio::time::Instant::now() + self.limits.drain;
        let mut is_ending = false;
        while !running.tasks.is_empty() {
            let end_all = |kind| running.phase.send_replace(Phase::End(kind));
            tokio::select! {
                Some(ended) = running.tasks.join_next() => self.keep(running, ended),
                () = stop.asked(), if !is_ending => {
                    is_ending = true;
                    end_all(FailureKind::Interrupted);
                }
                () = sleep_until(end), if !is_ending => {
                    is_ending = true;
                    end_all(FailureKind::Cut);
                }
            }
        }
    }

    fn send(&self, running: &mut Running, due: Due) {
        let record = self.record(running, &due);
        let request = Request {
            client: self.client.clone(),
            path: self.bodies.path(),
            body: due.body,
            deadline: self.limits.deadline,
            phase: running.phase.subscribe(),
        };
        running.tasks.spawn(request.perform(record, running.start));
        self.progress.send();
    }

    fn leave_out(&self, running: &mut Running, due: &Due) {
        let message = format!("{} requests were in flight", self.limits.in_flight_max);
        let failure = Some(Failure { kind: FailureKind::NotSent, message });
        let record = Record { failure, ..self.record(running, due) };
        self.progress.send();
        self.progress.end(&record);
        running.records.push(record);
    }

    fn keep(&self, running: &mut Running, ended: Result<Record, tokio::task::JoinError>) {
        // A task never panics and is never aborted; if a defect makes it, its request is missing in the report.
        if let Ok(record) = ended {
            self.progress.end(&record);
            running.records.push(record);
        }
    }

    fn record(&self, running: &Running, due: &Due) -> Record {
        let row = &self.rows[due.row];
        Record {
            row: due.row,
            class: row.class.clone(),
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            planned_us: due.planned_us,
            sent_us: since_us(running.start, Instant::now()),
            first_byte_us: None,
            arrivals: Vec::new(),
            end_us: 0,
            usage: None,
            finish_reason: None,
            failure: None,
        }
    }
}
