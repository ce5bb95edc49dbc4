//! A tiny language for scenarios: one event per line in, the decisions that follow it out.
//!
//! `config ahead=2`, `submit r1 prompt=20 max=3`, `step`, `offer r2 prompt=20 lease=5` ... see `World::run_line`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;

use expect_test::Expect;

use super::backend::{Effects, FakeBackend, damaged_row, sampled};
use super::scheduling::{scheduling, slo};
use super::show::{show_mark, show_plan, show_token};
use super::words::{Words, leg, span};
use crate::handoff::{LeaseKey, PullOutcome, Watermark};
use crate::message::{
    Commit, Envelope, FirstToken, FromWorker, Offer, ReleaseAnswer, ToGiver, ToReader, ToWorker, TokenTiming, Work,
};
use crate::replica::{
    Action, Compute, Event, LaneConfig, LaneWork, LeaseConfig, PrefixCache, Progress, Reading, Replica, ReplicaConfig,
    Transfer,
};
use crate::{
    BlockId, Choice, ChoiceState, Failure, FailureKind, FinishReason, InstanceId, LaneId, LeaseId, Leg, PullId,
    Request, Role, SampleOutcome, SamplingParams, Span, StepId, StepResult, Time, TokenId,
};

/// Runs a script on an idle replica and compares everything it decides. The first line may be `config ...`.
pub(super) fn check(script: &str, expected: Expect) {
    check_after(script, "", expected);
}

/// Runs a script whose decisions are not compared unless it is all, and then one whose decisions are.
#[expect(clippy::needless_pass_by_value, reason = "an expectation is used once")]
pub(super) fn check_after(before: &str, script: &str, expected: Expect) {
    let mut lines = before.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    let config = match lines.next_if(|line| line.starts_with("config")) {
        Some(line) => configured(&Words::of(line)),
        None => configured(&Words::of("config")),
    };
    let mut world = World::new(config);
    lines.for_each(|line| world.run_line(line));
    let mut compared = script.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    if compared.peek().is_some() {
        world.log.clear();
    }
    compared.for_each(|line| world.run_line(line));
    expected.assert_eq(&world.log);
}

struct World {
    replica: Replica,
    backend: FakeBackend,
    now: Time,
    leases: BTreeMap<LeaseId, usize>,
    /// Giver and lease under which a leg is taken over.
    offers: BTreeMap<Leg, (InstanceId, LeaseId)>,
    pulls: BTreeMap<PullId, Leg>,
    log: String,
}

pub(super) const LAYERS: u32 = 4;
/// Givers that are up from the start; others have to be met first.
const GIVERS_UP: RangeInclusive<u128> = 1..=9;

/// `two-lanes` is a lane 0 that prefills and a lane 1 that decodes, otherwise one lane is as its role has it.
fn lanes(words: &Words) -> Vec<LaneConfig> {
    let role = Role::from_label(words.named.get("role").unwrap_or(&"aggregated")).expect("role");
    let works = match words.plain.contains(&"two-lanes") {
        true => LaneWork::of_role(Role::Colocated),
        false => LaneWork::of_role(role),
    };
    let lane = |work: &LaneWork| LaneConfig {
        work: *work,
        step_tokens_max: words.number("rows", 64),
        step_layers_max: words.number("step-layers", LAYERS),
        steps_in_flight: words.number("ahead", 1),
    };
    works.iter().map(lane).collect()
}

fn configured(words: &Words) -> ReplicaConfig {
    ReplicaConfig {
        lanes: lanes(words),
        blocks_total: words.number("blocks", 16),
        block_tokens: 16,
        layers: LAYERS,
        vocab: words.number("vocab", 1 << 24),
        context_max: words.number("context", 1024),
        sequences_max: words.number("seats", 8),
        queue_legs_max: words.number("queue", 8),
        pulls_per_giver_max: words.number("pulls", 4),
        pull_tokens_max: words.number("pull_tokens", 1 << 20),
        reading: if words.plain.contains(&"streamed") { Reading::WhileFilling } else { Reading::WhenComplete },
        prefix_cache: if words.plain.contains(&"uncached") { PrefixCache::Off } else { PrefixCache::On },
        filling_share: words.number("filling", 50) as f32 / 100.0,
        scheduling: scheduling(words),
        lease: LeaseConfig::default(),
        hash_salt: 0,
        lease_key: LeaseKey::new([0; 32]),
    }
}

/// `prompt=20 family=3 n=2 max=5 min=0 stop=7 bias=9 resume=4 deadline=60s`: equal families share leading tokens.
fn request(words: &Words) -> Request {
    let leg = words.leg();
    let family = words.number("family", leg.request.0 as u32);
    let tokens = |range: std::ops::Range<u32>| range.map(|i| TokenId(family * 1000 + i)).collect::<Vec<_>>();
    let prompt = words.number("prompt", 1);
    let generated = tokens(prompt..prompt + words.number("resume", 0));
    let choice = |index| ChoiceState { choice: Choice(index), generated: generated.clone() };
    let bias = words.named.get("bias").iter().map(|token| (TokenId(token.parse().expect("bias")), 1.0)).collect();
    let params = SamplingParams {
        max_tokens: words.number("max", 4),
        min_tokens: words.number("min", 0),
        stop_tokens: words.named.get("stop").iter().map(|stop| TokenId(stop.parse().expect("stop"))).collect(),
        logit_bias: bias,
        temperature: words.real("temperature", 1.0),
        top_p: words.real("top_p", 1.0),
        min_p: words.real("min_p", 0.0),
        repetition_penalty: words.real("repetition", 1.0),
        presence_penalty: words.real("presence", 0.0),
        frequency_penalty: words.real("frequency", 0.0),
        prompt_logprobs: words.plain.contains(&"scored").then_some(2),
        ..SamplingParams::default()
    };
    Request {
        leg,
        prompt: tokens(0..prompt).into(),
        choices: (0..words.number("n", 1)).map(choice).collect(),
        params: Arc::new(params),
        slo: slo(words),
        deadline_in: words.named.get("deadline").map_or(Span::from_secs(600), |word| span(word)),
    }
}

/// `7 8!`: one first token per choice, `!` where it ends the choice.
fn firsts(words: &[&str]) -> Vec<FirstToken> {
    let first = |(index, word): (usize, &&str)| FirstToken {
        choice: Choice(index as u32),
        token: sampled(TokenId(word.trim_end_matches('!').parse().expect(word))),
        ended: word.ends_with('!').then_some(FinishReason::Stop),
    };
    words.iter().filter(|word| **word != "+").enumerate().map(first).collect()
}

fn pull_outcome(word: &str) -> PullOutcome {
    match word {
        "complete" => PullOutcome::Complete,
        "aborted" => PullOutcome::Aborted,
        why => PullOutcome::Failed(why.to_owned()),
    }
}

/// Reader that speaks: `by=2`, the first one if none is named.
fn reader(words: &Words) -> InstanceId {
    InstanceId(words.number("by", 1).into())
}

fn release_answered((giver, lease): (InstanceId, LeaseId), word: &str) -> Event {
    let answered = |answer| Event::Giver(giver, ToReader::Released { lease, answer });
    match word {
        "ok" => answered(ReleaseAnswer::Ok),
        "expired" => answered(ReleaseAnswer::Expired),
        "unheard" => Event::ReleaseUnheard { giver, lease },
        other => panic!("no such answer: {other}"),
    }
}

impl World {
    fn new(config: ReplicaConfig) -> World {
        let backend = FakeBackend::new(&config);
        let mut replica = Replica::new(config).expect("the configuration of a scenario is valid");
        GIVERS_UP.for_each(|giver| replica.on(Time(0), Event::GiverUp(InstanceId(giver))));
        World {
            replica,
            backend,
            now: Time(0),
            leases: BTreeMap::new(),
            offers: BTreeMap::new(),
            pulls: BTreeMap::new(),
            log: String::new(),
        }
    }

    fn run_line(&mut self, line: &str) {
        writeln!(self.log, "> {line}").expect("a string takes everything");
        let (verb, words) = (line.split_whitespace().next().unwrap_or(""), Words::of(line));
        if verb == "load" {
            return self.write_load();
        }
        let together = words.plain.contains(&"+");
        for event in self.events(verb, &words) {
            self.replica.on(self.now, event);
        }
        while let Some(action) = (!together).then(|| self.replica.poll()).flatten() {
            self.perform(action);
        }
        if let Err(why) = self.replica.check_invariants() {
            panic!("after {line}: {why}\n{}", self.log);
        }
    }

    /// A line that ends in `+` is decided together with the next.
    fn events(&mut self, verb: &str, words: &Words) -> Vec<Event> {
        let router = |message| vec![Event::Router(message)];
        match verb {
            "submit" if words.plain.contains(&"give") => router(ToWorker::Submit(request(words), Work::Give)),
            "submit" => router(ToWorker::Submit(request(words), Work::Whole)),
            "offer" => {
                let offer = offer(words);
                self.offers.insert(offer.request.leg, (offer.giver, offer.lease));
                router(ToWorker::Offer(offer))
            }
            "commit" => router(ToWorker::Commit(Commit { leg: words.leg(), firsts: firsts(&words.plain[1..]) })),
            "cancel" => {
                let choice = words.plain.get(1).map(|word| Choice(word.parse().expect("choice")));
                router(ToWorker::Cancel { leg: words.leg(), choice })
            }
            "renew" => router(ToWorker::Renew(words.plain.iter().map(|word| leg(word)).collect())),
            "step" => self.finish_steps(words),
            "fail-step" => {
                self.backend.abandon(lane(words)).into_iter().map(|step| step_failed(lane(words), step)).collect()
            }
            "refuse-step" => {
                self.backend.refuse(lane(words)).into_iter().map(|step| step_failed(lane(words), step)).collect()
            }
            "overtake" => self.backend.refuse(lane(words)).into_iter().map(step_done_too_early).collect(),
            "pull" => {
                let last =
                    self.pulls.iter().rfind(|(_, leg)| **leg == words.leg()).map_or(PullId(0), |(pull, _)| *pull);
                let pull = words.named.get("id").map_or(last, |id| PullId(id.parse().expect("id")));
                vec![Event::PullEnded { pull, outcome: pull_outcome(words.plain[1]) }]
            }
            "answer" => {
                let nobodys = (InstanceId(1), LeaseId(0));
                let of = self.offers.get(&words.leg()).copied().unwrap_or(nobodys);
                vec![release_answered(of, words.plain[1])]
            }
            "gone" => {
                let lease = LeaseId(words.number("lease", 0).into());
                vec![Event::Giver(InstanceId(words.number("giver", 1).into()), ToReader::Gone(vec![lease]))]
            }
            "filled" => {
                let (giver, lease) = self.offers[&words.leg()];
                let tokens = words.number("tokens", 0);
                let (chunk_end, layers) = (words.number("chunk", tokens), words.number("layers", 0));
                let stored = Watermark { tokens, chunk_end, layers };
                vec![Event::Giver(giver, ToReader::Filled { lease, stored })]
            }
            "progress" => {
                let step = StepId(words.number("step", 1).into());
                vec![Event::StepProgress { lane: lane(words), step, layers_done: words.number("layers", 1) }]
            }
            "giver-met" => vec![Event::GiverMet(InstanceId(words.number("giver", 1).into()))],
            "giver-unmet" => {
                let failure = Failure::new(FailureKind::Unavailable, "nobody answers");
                let address = words.named.get("at").copied().unwrap_or("peer:1").into();
                vec![Event::GiverUnmet { giver: InstanceId(words.number("giver", 1).into()), address, failure }]
            }
            "giver-up" => vec![Event::GiverUp(InstanceId(words.number("giver", 1).into()))],
            "giver-down" => vec![Event::GiverDown(InstanceId(words.number("giver", 1).into()))],
            "giver-lost" => vec![Event::GiverLost(InstanceId(words.number("giver", 1).into()))],
            "reader-follows" => vec![Event::Reader(reader(words), ToGiver::Follow(self.lease(words)))],
            "reader-renews" => vec![Event::Reader(reader(words), ToGiver::Renew(vec![self.lease(words)]))],
            "reader-releases" => vec![Event::Reader(reader(words), ToGiver::Release(self.lease(words)))],
            "reader-aborts" => vec![Event::Reader(reader(words), ToGiver::Abort(self.lease(words)))],
            "wait" => {
                self.now = self.now + span(words.plain[0]);
                vec![Event::Tick]
            }
            other => panic!("no such event: {other}"),
        }
    }

    /// Ends the oldest step 10 ms later, or after the time that it `took`. Tokens in the line replace its first; `damaged` and `masked` rows have none.
    fn finish_steps(&mut self, words: &Words) -> Vec<Event> {
        self.now = self.now + words.named.get("took").map_or(Span::from_ms(10), |word| span(word));
        let lane = lane(words);
        let (step, mut result) = self.backend.finish(lane).expect("a step is in flight");
        let words = words.plain.iter().filter(|word| **word != "+");
        for (index, (sample, word)) in result.samples.iter_mut().zip(words).enumerate() {
            *sample = outcome(word);
            if sample.is_err() {
                self.backend.void(lane, index);
            }
        }
        vec![Event::StepDone { lane, step, result }]
    }

    fn lease(&self, words: &Words) -> LeaseId {
        let wanted: usize = words.plain[0][1..].parse().expect("a lease is named L1, L2, ...");
        self.leases.iter().find(|(_, alias)| **alias == wanted).map_or(LeaseId(0), |(lease, _)| *lease)
    }

    fn alias(&mut self, lease: LeaseId) -> String {
        if lease.0 < 1000 {
            return lease.to_string();
        }
        let next = self.leases.len() + 1;
        format!("L{}", self.leases.entry(lease).or_insert(next))
    }

    fn perform(&mut self, action: Action) {
        let text = match action {
            Action::Compute(compute) => self.compute(compute),
            Action::Transfer(transfer) => self.show_transfer(transfer),
            Action::Say(Envelope::Router(word)) => self.show_message(word),
            Action::Say(Envelope::Over(leg)) => format!("over {}", show_leg(leg)),
            Action::Say(Envelope::Giver(giver, ToGiver::Follow(lease))) => {
                format!("follow {} at {giver}", self.alias(lease))
            }
            Action::Say(Envelope::Reader(InstanceId(1), word)) => self.show_answer("answer", word),
            Action::Say(Envelope::Reader(reader, word)) => self.show_answer(&format!("answer {reader}"), word),
            Action::Say(Envelope::Giver(giver, ToGiver::Renew(leases))) => format!("renew {giver} {leases:?}"),
            Action::Say(Envelope::Giver(giver, ToGiver::Release(lease))) => {
                let leg = self.offers.iter().find(|(_, of)| **of == (giver, lease)).map(|(leg, _)| *leg);
                format!("release {} {lease}", show_leg(leg.expect("a lease that was offered")))
            }
            Action::Say(Envelope::Giver(_, ToGiver::Abort(lease))) => format!("abort {lease}"),
        };
        writeln!(self.log, "  {text}").expect("a string takes everything");
    }

    fn compute(&mut self, compute: Compute) -> String {
        match compute {
            Compute::Run { lane, step, plan, progress } => {
                let telling = if progress == Progress::ByLayer { " (telling)" } else { "" };
                let beside = if lane == LaneId(0) { String::new() } else { format!(" in {lane}") };
                let text = format!("run {step}{beside}{telling}: {}", show_plan(&plan));
                self.backend.submit(lane, step, plan, Effects::Late);
                text
            }
            Compute::Cancel { lane, step } => {
                self.backend.cancel(lane, step);
                format!("cancel {step}")
            }
        }
    }

    fn show_transfer(&mut self, transfer: Transfer) -> String {
        match transfer {
            Transfer::Grant { lease, blocks } => format!("grant {} {}", self.alias(lease), list(&blocks)),
            Transfer::Meet { giver, address } => format!("meet {giver} at {address}"),
            Transfer::Revoke(lease) => format!("revoke {}", self.alias(lease)),
            Transfer::Pull(pull) => {
                self.pulls.insert(pull.id, pull.leg);
                let layers = match pull.layers == (0..LAYERS) {
                    true => String::new(),
                    false => format!(" layers {}..{}", pull.layers.start, pull.layers.end),
                };
                format!(
                    "pull {} {} {}..{}{layers} from {} {} to {} in {}",
                    show_leg(pull.leg),
                    pull.lease,
                    pull.positions.start,
                    pull.positions.end,
                    pull.giver,
                    list(&pull.remote),
                    list(&pull.local),
                    pull.deadline_in
                )
            }
            Transfer::AbortPull(pull) => format!("abort pull {}", show_leg(self.pulls[&pull])),
        }
    }

    fn show_answer(&mut self, verb: &str, word: ToReader) -> String {
        match word {
            ToReader::Gone(leases) => {
                let leases: Vec<_> = leases.into_iter().map(|lease| self.alias(lease)).collect();
                format!("{verb} gone {}", leases.join(" "))
            }
            ToReader::Filled { lease, stored } => format!("{verb} {} {}", self.alias(lease), show_mark(stored)),
            ToReader::Released { lease, answer } => format!("{verb} {} {answer:?}", self.alias(lease)),
        }
    }

    fn show_message(&mut self, message: FromWorker) -> String {
        match message {
            FromWorker::Offered { leg, lease, blocks } => {
                format!("offered {} {} {}", show_leg(leg), self.alias(lease), list(&blocks))
            }
            FromWorker::Committed { commit, timing } => {
                let firsts: Vec<_> =
                    commit.firsts.iter().map(|f| show_token(f.choice, None, f.token.token, f.ended)).collect();
                let TimingText(timing) = TokenTiming::First(timing).into();
                format!("committed {} {}{timing}", show_leg(commit.leg), firsts.join(" "))
            }
            FromWorker::HandedOver { leg } => format!("handed over {}", show_leg(leg)),
            FromWorker::ReaderLost { leg } => format!("reader lost {}", show_leg(leg)),
            FromWorker::Token { leg, choice, index, token, ended, timing } => {
                let TimingText(timing) = timing.map(TimingText::from).unwrap_or_default();
                format!("token {} {}{timing}", show_leg(leg), show_token(choice, Some(index), token.token, ended))
            }
            FromWorker::Scored { leg, scores } => {
                format!("scored {} {}..{}", show_leg(leg), scores.first, scores.first as usize + scores.scores.len())
            }
            FromWorker::Failed { leg, failure } => {
                format!("failed {} {}: {}", show_leg(leg), failure.kind.label(), failure.detail)
            }
        }
    }

    fn write_load(&mut self) {
        let load = self.replica.load();
        writeln!(
            self.log,
            "  running {} waiting {} ({} tokens) held {}; blocks free {} cached {} in use {} quarantined {}{}",
            load.running,
            load.waiting,
            load.waiting_tokens,
            load.held,
            load.blocks_free,
            load.blocks_cached,
            load.blocks_in_use,
            load.blocks_quarantined,
            match (load.cached_tokens, load.preemptions) {
                (0, 0) => String::new(),
                (cached, preempted) => format!("; ever {cached} tokens found, {preempted} preempted"),
            }
        )
        .expect("a string takes everything");
    }
}

fn outcome(word: &str) -> SampleOutcome {
    match word {
        "damaged" => Err(damaged_row()),
        "masked" => Err(Failure::new(FailureKind::InvalidRequest, "every token is masked")),
        token => Ok(sampled(TokenId(token.parse().expect(token)))),
    }
}

fn offer(words: &Words) -> Offer {
    let request = request(words);
    let blocks = (0..request.prefill_tokens().div_ceil(16) as u32).map(|index| BlockId(100 + index)).collect();
    Offer {
        request,
        giver: InstanceId(words.number("giver", 1).into()),
        giver_address: "peer:1".into(),
        lease: LeaseId(words.number("lease", 1).into()),
        blocks,
    }
}

/// `lane=1`, the first lane if none is named.
fn lane(words: &Words) -> LaneId {
    LaneId(words.number("lane", 0) as u8)
}

fn step_failed(lane: LaneId, step: StepId) -> Event {
    Event::StepFailed { lane, step, failure: Failure::new(FailureKind::Internal, "no device") }
}

fn step_done_too_early(step: StepId) -> Event {
    Event::StepDone { lane: LaneId(0), step, result: StepResult::default() }
}

fn show_leg(leg: Leg) -> String {
    match leg.attempt.0 {
        0 => format!("r{}", leg.request.0),
        attempt => format!("r{}.{attempt}", leg.request.0),
    }
}

pub(super) fn list(blocks: &[BlockId]) -> String {
    blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[derive(Default)]
struct TimingText(String);

impl From<TokenTiming> for TimingText {
    fn from(timing: TokenTiming) -> TimingText {
        TimingText(match timing {
            TokenTiming::First(first) if first.cached_tokens > 0 => {
                format!(" (queue {} prefill {} cached {})", first.queue, first.prefill, first.cached_tokens)
            }
            TokenTiming::First(first) => format!(" (queue {} prefill {})", first.queue, first.prefill),
            TokenTiming::Joined(join) => {
                format!(" (wait {} transfer {} queue {} step {})", join.wait, join.transfer, join.queue, join.step)
            }
        })
    }
}
