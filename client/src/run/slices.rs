//! Slices: several servers get the same rows in turns, so that noise of the machine hurts all alike.

use std::sync::Arc;

use super::body::{Bodies, BodySettings};
use super::course::{Course, Limits, Pace, run};
use super::progress::Progress;
use super::record::Record;
use super::stop::Stop;
use crate::Result;
use crate::http::Client;
use crate::workload::{Prompts, Row, TokenRange};

/// Server under its name in the report.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Name.
    pub name: String,
    /// Client of the server.
    pub client: Client,
    /// Fields of its requests.
    pub body: BodySettings,
}

/// Rows that go to every endpoint, slice by slice: the first slice to each, then the second to each. The next slice
/// begins when the requests of the one before have ended. With one endpoint there is one slice.
#[derive(Debug)]
pub struct Slices {
    /// Servers.
    pub endpoints: Vec<Endpoint>,
    /// Rows in order of time.
    pub rows: Arc<[Row]>,
    /// Tokens per block of the rows.
    pub block_tokens: u32,
    /// Number of slices.
    pub count: usize,
    /// Token ids of the prompts.
    pub token_range: TokenRange,
    /// Salt of the prompts; another one for each run.
    pub salt: u64,
    /// Open or closed loop.
    pub pace: Pace,
    /// Bounds.
    pub limits: Limits,
    /// Counts for others.
    pub progress: Arc<Progress>,
}

/// Records of one endpoint in order of their rows, and the seconds that its slices took.
#[derive(Debug, Default)]
pub struct Taken {
    /// Records.
    pub records: Vec<Record>,
    /// Sum of the times from the first planned request to the last end, over the slices.
    pub span_us: u64,
}

impl Slices {
    /// Sends everything; returns what each endpoint did, in their order.
    pub async fn run(&self, stop: &Stop) -> Result<Vec<Taken>> {
        let mut taken: Vec<Taken> = self.endpoints.iter().map(|_| Taken::default()).collect();
        for slice in self.bounds() {
            for (place, endpoint) in self.endpoints.iter().enumerate() {
                if stop.is_asked() {
                    return Ok(taken);
                }
                let records = run(&self.course(place, endpoint, slice.clone()), stop).await?;
                taken[place].add(slice.start, records);
            }
        }
        Ok(taken)
    }

    /// Bounds of the slices: equal parts of the span, none of them empty.
    fn bounds(&self) -> Vec<std::ops::Range<usize>> {
        let span_us = self.rows.last().map_or(0, |row| row.at_us) + 1;
        let count = self.count.max(1) as u64;
        let ends =
            (1..=count).map(|slice| self.rows.partition_point(|row| row.at_us < span_us.div_ceil(count) * slice));
        let mut start = 0;
        let bounds = ends.map(|end| std::mem::replace(&mut start, end)..end);
        bounds.filter(|slice| !slice.is_empty()).collect()
    }

    fn course(&self, place: usize, endpoint: &Endpoint, slice: std::ops::Range<usize>) -> Course {
        let start_us = self.rows[slice.start].at_us;
        let rows = self.rows[slice.clone()].iter().map(|row| Row { at_us: row.at_us - start_us, ..row.clone() });
        // Prompts differ between endpoints and slices, so that two names of one server do not share a prefix cache.
        // Blocks are shared inside a slice only.
        let salt = sched::rng::token_hash(self.salt, (slice.start as u64) << 8 | place as u64);
        let prompts = Prompts::new(salt, self.token_range, self.block_tokens);
        Course {
            client: endpoint.client.clone(),
            rows: rows.collect(),
            bodies: Arc::new(Bodies::new(&endpoint.body, prompts)),
            pace: self.pace,
            limits: self.limits,
            progress: Arc::clone(&self.progress),
        }
    }
}

impl Taken {
    fn add(&mut self, first_row: usize, records: Vec<Record>) {
        let before_us = self.span_us;
        let end_us = records.iter().map(|record| record.sent_us + u64::from(record.end_us)).max();
        self.span_us += end_us.unwrap_or(0);
        // The times of a slice follow those of the slice before.
        self.records.extend(records.into_iter().map(|record| Record {
            row: record.row + first_row,
            planned_us: record.planned_us + before_us,
            sent_us: record.sent_us + before_us,
            ..record
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn slices_are_equal_parts_of_the_time() {
        let row = |at_us| Row { at_us, input_tokens: 1, output_tokens: 1, blocks: [].into(), class: None };
        let bounds = |times: &[u64], count| {
            let limits = Limits { in_flight_max: 1, deadline: Duration::ZERO, drain: Duration::ZERO };
            let rows = times.iter().map(|at| row(*at)).collect();
            let (endpoints, progress) = (Vec::new(), Arc::default());
            let token_range = TokenRange::default();
            let pace = Pace::Open;
            Slices { endpoints, rows, block_tokens: 1, count, token_range, salt: 0, pace, limits, progress }.bounds()
        };
        assert_eq!(bounds(&[0, 1, 2, 3, 4, 5, 6, 7], 2), [0..4, 4..8]);
        assert_eq!(bounds(&[0, 1, 2, 99], 2), [0..3, 3..4]);
        assert_eq!(bounds(&[0, 0, 0], 4), std::iter::once(0..3).collect::<Vec<_>>());
        assert_eq!(bounds(&[0, 5, 9], 1).len(), 1);
    }
}
