//! Latencies of one request while it runs and when it has ended; knows no other request.

use std::collections::BTreeMap;

use super::{GapParts, Marks, Outcome, Target, TtftParts, Verdict};
use crate::message::{FirstTiming, TokenTiming};
use crate::{Choice, Slo, Span, Time};

/// Tokens of one request seen so far, as times.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    slo: Slo,
    /// Quantile of a request's own ITLs that its class compares with `Slo::itl_tail`, in (0, 1].
    itl_quantile: f64,
    marks: Marks,
    ttft: Option<TtftParts>,
    choices: BTreeMap<Choice, Seen>,
    itls: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Time,
    last: Time,
    tokens: u32,
    stage: Stage,
}

/// Whether more tokens of a choice are awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Ended,
}

/// Contribution of one token to the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observation {
    /// Set for the first token of the request.
    pub ttft: Option<TtftParts>,
    /// Set for a token that has a predecessor in its choice.
    pub itl: Option<Span>,
    /// Set for the first token of a taken-over leg; the parts sum to `itl`.
    pub handoff_gap: Option<GapParts>,
}

/// A request that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Class of the request.
    pub class: u16,
    /// Outcome.
    pub outcome: Outcome,
    /// Results of its targets.
    pub verdict: Verdict,
    /// Time to first token, if there was one.
    pub ttft: Option<TtftParts>,
    /// Largest TPOT of its choices, if one has two tokens. Rounded up, so comparing it with a target is exact.
    pub tpot: Option<Span>,
    /// Quantile of its ITLs that its class asks for.
    pub itl_tail: Option<Span>,
    /// From arrival to the end.
    pub total: Span,
    /// Tokens that the client got, over all choices.
    pub tokens: u64,
}

impl RequestRecord {
    /// Begins with a request whose first byte is there. `itl_quantile` is its class's, in (0, 1].
    #[must_use]
    pub fn new(arrived: Time, slo: Slo, itl_quantile: f64) -> RequestRecord {
        RequestRecord {
            slo,
            itl_quantile,
            marks: Marks { arrived, parsed: arrived, admitted: arrived },
            ttft: None,
            choices: BTreeMap::new(),
            itls: Vec::new(),
        }
    }

    /// Records that it was parsed, templated and tokenised. Its class is known from here on at the latest.
    pub fn parsed(&mut self, now: Time, slo: Slo) {
        self.slo = slo;
        self.marks.parsed = now.max(self.marks.arrived);
        self.marks.admitted = self.marks.parsed;
    }

    /// Records that admission has let it in.
    pub fn admitted(&mut self, now: Time) {
        self.marks.admitted = now.max(self.marks.parsed);
    }

    /// Records a token of `choice` that goes to the client now. `submitted` and `timing` are as in `journey::Delivery`.
    pub fn token(&mut self, now: Time, choice: Choice, submitted: Time, timing: Option<TokenTiming>) -> Observation {
        let mut observation = Observation::default();
        if self.ttft.is_none() {
            let first = match timing {
                Some(TokenTiming::First(first)) => first,
                Some(TokenTiming::Joined(_)) | None => FirstTiming::default(),
            };
            observation.ttft = Some(TtftParts::split(&self.marks, submitted, first, now));
            self.ttft = observation.ttft;
        }
        let before = self.choices.get(&choice).copied();
        if let Some(before) = before {
            let itl = now.since(before.last);
            self.itls.push(itl);
            observation.itl = Some(itl);
            if let Some(TokenTiming::Joined(join)) = timing {
                observation.handoff_gap = Some(GapParts::split(itl, join));
            }
        }
        let seen = before.map_or(Seen { first: now, last: now, tokens: 1, stage: Stage::Open }, |before| Seen {
            last: now.max(before.last),
            tokens: before.tokens + 1,
            ..before
        });
        self.choices.insert(choice, seen);
        observation
    }

    /// Records that no more tokens of `choice` are awaited.
    pub fn choice_ended(&mut self, choice: Choice) {
        if let Some(seen) = self.choices.get_mut(&choice) {
            seen.stage = Stage::Ended;
        }
    }

    /// Ends the request and judges its targets.
    #[must_use]
    pub fn end(mut self, now: Time, outcome: Outcome) -> Summary {
        let itl_tail = quantile(&mut self.itls, self.itl_quantile);
        let tpot = self.choices.values().filter_map(Seen::tpot).max();
        let tokens = self.choices.values().map(|seen| u64::from(seen.tokens)).sum();
        let total = now.since(self.marks.arrived);
        let ttft = self.ttft.map(|parts| parts.total());
        let (tpot_at_least, itl_tail_at_least) = match outcome {
            Outcome::ClientGone => self.as_if_tokens_came(now),
            Outcome::Done | Outcome::Refused | Outcome::Failed => (tpot, itl_tail),
        };
        // Without a first token, the time waited so far counts against the target.
        let verdict = Verdict {
            ttft: Target::judge(self.slo.ttft, Some(ttft.unwrap_or(total))),
            tpot: Target::judge(self.slo.tpot, tpot_at_least),
            itl_tail: Target::judge(self.slo.itl_tail, itl_tail_at_least),
        };
        Summary { class: self.slo.class, outcome, verdict, ttft: self.ttft, tpot, itl_tail, total, tokens }
    }

    /// TPOT and tail of the gaps if the next token of every open choice came now: a client that leaves has waited that
    /// long for it.
    fn as_if_tokens_came(&mut self, now: Time) -> (Option<Span>, Option<Span>) {
        let open = self.choices.values_mut().filter(|seen| seen.stage == Stage::Open);
        for seen in open {
            self.itls.push(now.since(seen.last));
            (seen.last, seen.tokens) = (now.max(seen.last), seen.tokens + 1);
        }
        let tpot = self.choices.values().filter_map(Seen::tpot).max();
        (tpot, quantile(&mut self.itls, self.itl_quantile))
    }
}

impl Seen {
    fn tpot(&self) -> Option<Span> {
        (self.tokens >= 2).then(|| Span(self.last.since(self.first).us().div_ceil(u64::from(self.tokens) - 1)))
    }
}

/// Nearest-rank quantile: the smallest span that at least `q` of all spans do not exceed. Sorts its input.
#[must_use]
pub fn quantile(spans: &mut [Span], q: f64) -> Option<Span> {
    spans.sort_unstable();
    let rank = (q.clamp(0.0, 1.0) * spans.len() as f64).ceil() as usize;
    spans.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::super::Judgement;
    use super::*;
    use crate::message::JoinTiming;

    fn slo(ttft: u64, tpot: u64, itl: u64) -> Slo {
        Slo { class: 2, ttft: Some(Span(ttft)), tpot: Some(Span(tpot)), itl_tail: Some(Span(itl)) }
    }

    fn run(slo: Slo, times: &[u64]) -> Summary {
        let mut record = RequestRecord::new(Time(1_000), slo, 0.99);
        record.parsed(Time(1_010), slo);
        record.admitted(Time(1_015));
        for time in times {
            record.token(Time(*time), Choice(0), Time(1_020), None);
        }
        record.end(Time(2_000), Outcome::Done)
    }

    #[test]
    fn ttft_tpot_and_tail_are_judged() {
        let summary = run(slo(100, 20, 25), &[1_100, 1_120, 1_135, 1_160]);
        assert_eq!(summary.ttft.unwrap().total(), Span(100));
        assert_eq!(summary.tpot, Some(Span(20)));
        assert_eq!(summary.itl_tail, Some(Span(25)));
        assert_eq!((summary.class, summary.tokens, summary.total), (2, 4, Span(1_000)));
        assert!(summary.met());
        assert!(!run(slo(99, 20, 25), &[1_100, 1_120]).met());
        assert!(!run(slo(100, 19, 25), &[1_100, 1_120, 1_135, 1_160]).met());
        assert!(!run(slo(100, 20, 24), &[1_100, 1_120, 1_135, 1_160]).met());
        assert!(run(slo(100, 1, 1), &[1_100]).met(), "one token has neither TPOT nor ITL");
    }

    #[test]
    fn a_tpot_just_over_its_target_is_missed() {
        assert_eq!(run(slo(100, 20, 99), &[1_100, 1_120, 1_141]).verdict.tpot, Target::Missed);
        assert_eq!(run(slo(100, 20, 99), &[1_100, 1_120, 1_140]).verdict.tpot, Target::Met);
    }

    #[test]
    fn refused_failed_and_unanswered_count_as_missed() {
        let ends = |outcome, after| RequestRecord::new(Time(0), slo(100, 1, 1), 0.99).end(Time(after), outcome);
        assert_eq!(ends(Outcome::Refused, 1).judgement(), Judgement::Missed);
        assert_eq!(ends(Outcome::Failed, 1).judgement(), Judgement::Missed);
        assert_eq!(ends(Outcome::ClientGone, 101).judgement(), Judgement::Missed);
        let left = ends(Outcome::ClientGone, 100);
        assert_eq!((left.judgement(), left.met()), (Judgement::Left, false), "nothing was missed before it left");
    }

    #[test]
    fn a_client_that_leaves_has_waited_for_the_next_token() {
        let leaves = |after: u64, ended: Option<Choice>| {
            let mut record = RequestRecord::new(Time(0), slo(100, 20, 50), 1.0);
            for time in [10, 20, 30] {
                record.token(Time(time), Choice(0), Time(0), None);
            }
            ended.into_iter().for_each(|choice| record.choice_ended(choice));
            record.end(Time(30 + after), Outcome::ClientGone)
        };
        assert_eq!(leaves(40, None).judgement(), Judgement::Left, "three gaps of 20 on average");
        let late = leaves(41, None);
        assert_eq!((late.judgement(), late.verdict.tpot), (Judgement::Missed, Target::Missed));
        assert_eq!((late.tpot, late.tokens), (Some(Span(10)), 3), "measured are real tokens only");
        assert_eq!(leaves(60, None).verdict.itl_tail, Target::Missed);
        assert_eq!(leaves(60, Some(Choice(0))).judgement(), Judgement::Left, "it waited for nothing any more");
    }

    #[test]
    fn the_handoff_gap_is_an_itl() {
        let mut record = RequestRecord::new(Time(0), Slo::default(), 0.99);
        let first = FirstTiming { queue: Span(3), prefill: Span(40), ..FirstTiming::default() };
        let seen = record.token(Time(50), Choice(0), Time(5), Some(TokenTiming::First(first)));
        assert_eq!((seen.ttft.unwrap().queue, seen.ttft.unwrap().relay), (Span(8), Span(2)));
        assert_eq!((seen.itl, seen.handoff_gap), (None, None));
        let join = JoinTiming { wait: Span(1), transfer: Span(4), queue: Span(2), step: Span(8) };
        let seen = record.token(Time(70), Choice(0), Time(5), Some(TokenTiming::Joined(join)));
        assert_eq!(seen.itl, Some(Span(20)));
        assert_eq!(seen.handoff_gap.unwrap().total(), Span(20));
        assert_eq!(seen.handoff_gap.unwrap().wait, Span(6));
        assert_eq!(record.token(Time(80), Choice(0), Time(5), None).itl, Some(Span(10)));
        assert_eq!(record.end(Time(80), Outcome::Done).tpot, Some(Span(15)));
    }

    #[test]
    fn the_worst_choice_decides_tpot() {
        let mut record = RequestRecord::new(Time(0), Slo::default(), 0.5);
        for (choice, time) in [(0, 10), (1, 10), (0, 20), (1, 40)] {
            record.token(Time(time), Choice(choice), Time(0), None);
        }
        let summary = record.end(Time(50), Outcome::Done);
        assert_eq!((summary.tpot, summary.itl_tail), (Some(Span(30)), Some(Span(10))));
    }

    #[test]
    fn quantiles_are_nearest_rank() {
        let mut spans: Vec<Span> = (1..=100).rev().map(Span).collect();
        assert_eq!(quantile(&mut spans, 0.99), Some(Span(99)));
        assert_eq!(quantile(&mut spans, 1.0), Some(Span(100)));
        assert_eq!(quantile(&mut spans, 0.0), Some(Span(1)));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
