//! Record of one request: times, tokens and end. Knows no targets.

use std::sync::Arc;

use crate::http::Usage;
use crate::run::Failure;

/// Arrival of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Microseconds since the request was sent.
    pub at_us: u32,
    /// Tokens that the event says it brings; 1 if it does not say.
    pub tokens: u32,
}

/// Record of one request.
#[derive(Debug, Clone)]
pub struct Record {
    /// Place in the rows of its course.
    pub row: usize,
    /// SLO class that the row names.
    pub class: Option<Arc<str>>,
    /// Prompt tokens that the row asks for.
    pub input_tokens: u32,
    /// Answer tokens that the row asks for.
    pub output_tokens: u32,
    /// Time when the request was due, in microseconds since the start of its course.
    pub planned_us: u64,
    /// Time when the request was handed to a connection, or when it was not sent; same origin.
    pub sent_us: u64,
    /// Microseconds from sending to the status of the answer.
    pub first_byte_us: Option<u32>,
    /// Events with tokens.
    pub arrivals: Vec<Arrival>,
    /// Microseconds from sending to the end of the request.
    pub end_us: u32,
    /// Token counts of the server.
    pub usage: Option<Usage>,
    /// Reason for the end of the answer, by the server.
    pub finish_reason: Option<String>,
    /// Failure, if there was one.
    pub failure: Option<Failure>,
}

impl Record {
    /// Lag of the generator: sent minus planned.
    #[must_use]
    pub fn lag_us(&self) -> u64 {
        self.sent_us.saturating_sub(self.planned_us)
    }

    /// Time to the first token.
    #[must_use]
    pub fn ttft_us(&self) -> Option<u64> {
        self.arrivals.first().map(|arrival| u64::from(arrival.at_us))
    }

    /// Time to the last token.
    #[must_use]
    pub fn e2e_us(&self) -> Option<u64> {
        self.arrivals.last().map(|arrival| u64::from(arrival.at_us))
    }

    /// Answer tokens by the server's count, else by the events.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.usage.map_or_else(|| self.counted_tokens(), |usage| usage.completion_tokens)
    }

    /// Answer tokens by the events.
    #[must_use]
    pub fn counted_tokens(&self) -> u64 {
        self.arrivals.iter().map(|arrival| u64::from(arrival.tokens)).sum()
    }

    /// Mean time per token after the first, `(E2E - TTFT) / (tokens - 1)`; `None` with fewer than two tokens.
    #[must_use]
    pub fn tpot_us(&self) -> Option<f64> {
        let gaps = self.tokens().checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some((self.e2e_us()? - self.ttft_us()?) as f64 / gaps as f64)
    }

    /// Gaps between tokens, each with the number of tokens that it stands for. The gap before an event with several
    /// tokens is divided by them. If the server counted more tokens than the events say, the events held several
    /// without saying so: then each gap is divided by their mean.
    pub fn gaps_us(&self) -> impl Iterator<Item = (f64, u32)> + '_ {
        let events = self.arrivals.len().saturating_sub(1) as f64;
        let counted = self.counted_tokens().saturating_sub(1) as f64;
        let real = self.tokens().saturating_sub(1) as f64;
        let says_all = counted >= real || events == 0.0;
        self.arrivals.windows(2).map(move |pair| {
            let gap = f64::from(pair[1].at_us - pair[0].at_us);
            let tokens = pair[1].tokens.max(1);
            if says_all { (gap / f64::from(tokens), tokens) } else { (gap * events / real, 1) }
        })
    }

    /// True if the server counted tokens and none of them had text: part of a character, or a special token.
    #[must_use]
    pub fn has_tokens_without_text(&self) -> bool {
        self.arrivals.is_empty() && self.tokens() > 0
    }

    /// True if the events held more tokens than they said.
    #[must_use]
    pub fn has_packed_events(&self) -> bool {
        self.tokens() > self.counted_tokens()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Record of a request that was sent on time; its events come at these milliseconds.
    pub(crate) fn record(arrivals_ms: &[(u32, u32)], usage: Option<u64>) -> Record {
        let arrivals = arrivals_ms.iter().map(|(ms, tokens)| Arrival { at_us: ms * 1000, tokens: *tokens });
        let arrivals: Vec<Arrival> = arrivals.collect();
        Record {
            row: 0,
            class: None,
            input_tokens: 10,
            output_tokens: 5,
            planned_us: 0,
            sent_us: 0,
            first_byte_us: Some(1),
            end_us: arrivals.last().map_or(0, |arrival| arrival.at_us),
            arrivals,
            usage: usage.map(|completion_tokens| Usage { prompt_tokens: 10, completion_tokens }),
            finish_reason: None,
            failure: None,
        }
    }

    #[test]
    fn tpot_is_the_mean_gap_by_the_counts_of_the_server() {
        assert_eq!(record(&[(100, 1), (120, 1), (140, 1)], Some(3)).tpot_us(), Some(20_000.0));
        assert_eq!(record(&[(100, 1), (160, 1)], Some(4)).tpot_us(), Some(20_000.0));
        assert_eq!(record(&[(100, 1), (160, 1)], None).tpot_us(), Some(60_000.0));
        assert_eq!(record(&[(100, 1)], Some(1)).tpot_us(), None);
        assert_eq!(record(&[], None).tpot_us(), None);
    }

    #[test]
    fn gaps_are_divided_by_the_tokens_that_an_event_holds() {
        let gaps = |record: Record| record.gaps_us().collect::<Vec<_>>();
        assert_eq!(gaps(record(&[(100, 1), (120, 1), (180, 3)], Some(5))), [(20_000.0, 1), (20_000.0, 3)]);
        assert_eq!(gaps(record(&[(100, 1), (120, 1), (180, 1)], Some(5))), [(10_000.0, 1), (30_000.0, 1)]);
        assert_eq!(gaps(record(&[(100, 1)], Some(3))), []);
        assert!(record(&[(100, 1)], Some(3)).has_packed_events());
    }
}
