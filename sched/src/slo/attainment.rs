//! Share of a class's arrivals that met their targets; knows only summaries of requests.

use super::Summary;
use crate::Span;

/// End of a request, for the account of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client got everything.
    Done,
    /// Admission turned it away.
    Refused,
    /// The request failed after it was let in.
    Failed,
    /// The client left first.
    ClientGone,
}

/// What a request says about the service that its class gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It met every target: it counts towards goodput.
    Met,
    /// It was refused, failed, or missed a target.
    Missed,
    /// Its client left before a target was missed. Nobody knows how it would have ended, so it counts as neither: a
    /// client that changes its mind makes a service neither better nor worse.
    Left,
}

/// Result of one target of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The class has none, or there is nothing to measure (TPOT of one token).
    Absent,
    /// The target was reached.
    Met,
    /// The target was not reached.
    Missed,
}

/// Results of the targets of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Time to first token.
    pub ttft: Target,
    /// Time per output token.
    pub tpot: Target,
    /// Tail of the gaps between tokens.
    pub itl_tail: Target,
}

/// Account of one class over some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attainment {
    /// Requests that arrived and have ended.
    pub arrivals: u64,
    /// Requests that met every target.
    pub met: u64,
    /// Requests that were turned away.
    pub refused: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests whose client left before a target was missed; they are in no ratio.
    pub left: u64,
    /// Requests, of whatever outcome, whose first token was late.
    pub missed_ttft: u64,
    /// Requests whose tokens were slow on average.
    pub missed_tpot: u64,
    /// Requests whose gaps were too long at the tail.
    pub missed_itl_tail: u64,
}

impl Target {
    pub(super) fn judge(target: Option<Span>, value: Option<Span>) -> Target {
        match target.zip(value) {
            None => Target::Absent,
            Some((target, value)) if value <= target => Target::Met,
            Some(_) => Target::Missed,
        }
    }
}

impl Summary {
    /// Judges the request as a whole. A client that leaves after a target was missed may have left because of that, so
    /// its request is a missed one.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        let Verdict { ttft, tpot, itl_tail } = self.verdict;
        let in_time = [ttft, tpot, itl_tail].iter().all(|target| *target != Target::Missed);
        match self.outcome {
            Outcome::Done if in_time => Judgement::Met,
            Outcome::ClientGone if in_time => Judgement::Left,
            Outcome::Done | Outcome::ClientGone | Outcome::Refused | Outcome::Failed => Judgement::Missed,
        }
    }

    /// True if the request counts towards goodput.
    #[must_use]
    pub fn met(&self) -> bool {
        self.judgement() == Judgement::Met
    }
}

impl Attainment {
    /// Adds a request that has ended.
    pub fn add(&mut self, summary: &Summary) {
        let missed = |target| u64::from(target == Target::Missed);
        self.arrivals += 1;
        self.met += u64::from(summary.met());
        self.refused += u64::from(summary.outcome == Outcome::Refused);
        self.failed += u64::from(summary.outcome == Outcome::Failed);
        self.left += u64::from(summary.judgement() == Judgement::Left);
        self.missed_ttft += missed(summary.verdict.ttft);
        self.missed_tpot += missed(summary.verdict.tpot);
        self.missed_itl_tail += missed(summary.verdict.itl_tail);
    }

    /// Part of all arrivals that met every target, in [0, 1], without those whose client left before one was missed; 1
    /// if there were no others.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let judged = self.arrivals - self.left;
        if judged == 0 { 1.0 } else { self.met as f64 / judged as f64 }
    }

    /// Requests per second that met every target, over `elapsed`.
    #[must_use]
    pub fn goodput(&self, elapsed: Span) -> f64 {
        if elapsed == Span::ZERO { 0.0 } else { self.met as f64 / elapsed.secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RequestRecord;
    use super::*;
    use crate::{Choice, Slo, Time};

    #[test]
    fn every_arrival_counts() {
        let slo = Slo { ttft: Some(Span(10)), ..Slo::default() };
        let mut account = Attainment::default();
        for (first_token, outcome) in [
            (Some(10), Outcome::Done),
            (Some(11), Outcome::Done),
            (None, Outcome::Refused),
            (Some(5), Outcome::Failed),
            (Some(5), Outcome::ClientGone),
        ] {
            let mut record = RequestRecord::new(Time(0), slo, 0.99);
            if let Some(time) = first_token {
                record.token(Time(time), Choice(0), Time(0), None);
            }
            account.add(&record.end(Time(20), outcome));
        }
        let wanted =
            Attainment { arrivals: 5, met: 1, refused: 1, failed: 1, left: 1, missed_ttft: 2, ..Attainment::default() };
        assert_eq!(account, wanted);
        assert_eq!(account.ratio(), 0.25, "who left is in no ratio");
        assert_eq!(account.goodput(Span::from_secs(2)), 0.5);
        assert_eq!(Attainment::default().ratio(), 1.0);
    }
}
