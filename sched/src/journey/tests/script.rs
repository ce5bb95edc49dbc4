//! A journey under a script, as text: what happens on the left of `|`, what the journey does about it on the right.

use expect_test::Expect;

use super::*;
use crate::cluster::Intake;
use crate::message::{Commit, FirstTiming, FirstToken, FromWorker, JoinTiming};
use crate::{BlockId, LeaseId, Score, Scores};

/// A journey under a script. Each line is one fact; time passes 1 ms per line. `W offered A`, `W scored A first count`,
/// `W committed A token...`,
/// `W handed A`, `W reader-lost A`, `W token A choice index token`, `W failed A kind`, `lost W`, `drain W`, `unlink W`,
/// `join role`, `gone`, `stop choice`, `at MS` (W: worker, A: attempt). A token with `!` ends its choice.
struct Script {
    world: World,
    journey: Journey,
    now_ms: u64,
    text: String,
}

pub(super) fn check(roles: &str, choices: u32, max_tokens: u32, script: &str, expect: &Expect) {
    check_with(config(), roles, (choices, max_tokens), script, expect);
}

/// Like `check`, but decode workers prefill locally after too many lost hand-offs.
pub(super) fn check_local(roles: &str, choices: u32, max_tokens: u32, script: &str, expect: &Expect) {
    let config = JourneyConfig { lost_handoffs: LostHandoffs::PrefillLocally, ..config() };
    check_with(config, roles, (choices, max_tokens), script, expect);
}

/// Like `check`, for a prompt that is scored.
pub(super) fn check_scored(roles: &str, script: &str, expect: &Expect) {
    let parts = parts(1, 3);
    let params = SamplingParams { prompt_logprobs: Some(0), ..(*parts.params).clone() };
    let prompt = vec![TokenId(1); 5].into();
    run(Journey::new(Time(0), Parts { prompt, params: params.into(), ..parts }, config()), roles, script, expect);
}

fn check_with(config: JourneyConfig, roles: &str, size: (u32, u32), script: &str, expect: &Expect) {
    run(Journey::new(Time(0), parts(size.0, size.1), config), roles, script, expect);
}

fn run(journey: Journey, roles: &str, script: &str, expect: &Expect) {
    let mut run = Script { world: World::new(roles), journey, now_ms: 0, text: String::new() };
    run.step("start", JourneyEvent::Tick);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        run.now_ms += 1;
        let event = run.event(line);
        run.step(line, event);
    }
    let bound: Vec<String> =
        run.journey.bound().map(|(worker, leg)| format!("{} {}", worker.0, leg.attempt.0)).collect();
    let next = run.journey.next_timeout().map_or("never".into(), |time| format!("{} ms", time.us() / 1_000));
    run.text += &format!("bound [{}], next timeout {next}\n", bound.join(", "));
    expect.assert_eq(&run.text);
}

impl Script {
    fn step(&mut self, line: &str, event: JourneyEvent) {
        let now = Time(self.now_ms * 1_000);
        self.world.on(&mut self.journey, now, event);
        let actions = std::iter::from_fn(|| self.journey.poll()).filter(|action| !is_about_its_submit(action));
        let actions: Vec<String> = actions.map(|action| show(&action)).collect();
        self.text += &format!("{line:28}| {}", actions.join("; "));
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
    }

    fn event(&mut self, line: &str) -> JourneyEvent {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["lost", id] => {
                self.world.routing.leave(WorkerId(number(id)));
                let worker = WorkerId(number(id));
                JourneyEvent::WorkerLost { worker, name: worker.to_string().into() }
            }
            ["drain", id] => {
                self.world.routing.cluster.set_intake(WorkerId(number(id)), Intake::Draining);
                JourneyEvent::Tick
            }
            ["unlink", id] => {
                self.world.routing.cluster.set_links(WorkerId(number(id)), []);
                JourneyEvent::Tick
            }
            ["join", role] => {
                self.world.join(role.chars().next().unwrap());
                JourneyEvent::WorkersChanged
            }
            ["gone"] => JourneyEvent::ClientGone,
            ["stop", choice] => JourneyEvent::StopChoice { choice: Choice(number(choice)) },
            ["at", ms] => {
                self.now_ms = u64::from(number(ms));
                JourneyEvent::Tick
            }
            [id, kind, attempt, ..] => JourneyEvent::FromWorker {
                worker: WorkerId(number(id)),
                message: message(kind, self.leg(attempt), &words[3..], &self.journey),
            },
            _ => panic!("no event {line}"),
        }
    }

    fn leg(&self, attempt: &str) -> Leg {
        Leg { request: RequestId(1), attempt: Attempt(number(attempt)) }
    }
}

fn message(kind: &str, leg: Leg, words: &[&str], journey: &Journey) -> FromWorker {
    match kind {
        "offered" => FromWorker::Offered { leg, lease: LeaseId(40), blocks: vec![BlockId(5), BlockId(6)] },
        "committed" => {
            let choices: Vec<Choice> =
                journey.legs.get(&leg.attempt).map_or(vec![Choice(0)], |l| l.choices().collect());
            let firsts = choices.into_iter().zip(words).map(|(choice, word)| {
                let (token, ended) = token(word);
                FirstToken { choice, token, ended }
            });
            let timing = FirstTiming { queue: Span(1), prefill: Span(2), ..FirstTiming::default() };
            FromWorker::Committed { commit: Commit { leg, firsts: firsts.collect() }, timing }
        }
        "scored" => {
            let score = Score { logprob: -1.0, rank: 1, top: vec![] };
            let scores = vec![score; number(words[1]) as usize];
            FromWorker::Scored { leg, scores: Scores { first: number(words[0]), scores } }
        }
        "handed" => FromWorker::HandedOver { leg },
        "reader-lost" => FromWorker::ReaderLost { leg },
        "token" => {
            let (token, ended) = token(words[2]);
            let index = number(words[1]);
            let timing = (index == 1).then_some(TokenTiming::Joined(JoinTiming::default()));
            FromWorker::Token { leg, choice: Choice(number(words[0])), index, token, ended, timing }
        }
        "failed" => {
            let kind = FailureKind::ALL.into_iter().find(|kind| kind.label() == words[0]).unwrap();
            FromWorker::Failed { leg, failure: Failure::new(kind, "worker says so") }
        }
        other => panic!("no message {other}"),
    }
}

fn number(word: &str) -> u32 {
    word.parse().unwrap()
}

fn token(word: &str) -> (SampledToken, Option<FinishReason>) {
    let ended = word.ends_with('!').then_some(FinishReason::Stop);
    (SampledToken { token: TokenId(number(word.trim_end_matches('!'))), logprob: None, top: vec![] }, ended)
}

/// True for `Placed`: the message that follows shows where the leg goes.
fn is_about_its_submit(action: &JourneyAction) -> bool {
    matches!(action, JourneyAction::Placed { .. })
}

fn show(action: &JourneyAction) -> String {
    match action {
        JourneyAction::Placed { leg, chosen } => format!("{leg} goes {:?}", chosen.route),
        JourneyAction::Send { worker, message } => format!("{} <- {}", worker.0, show_message(message)),
        JourneyAction::Deliver(d) => {
            let timing = match d.timing {
                None => "",
                Some(TokenTiming::First(_)) => " first",
                Some(TokenTiming::Joined(_)) => " joined",
            };
            format!("deliver {}#{}={}{timing}", d.choice.0, d.index, d.token.token.0)
        }
        JourneyAction::DeliverScores(scores) => format!("deliver {} scores from {}", scores.scores.len(), scores.first),
        JourneyAction::FinishChoice { choice, reason } => format!("finish {} {reason:?}", choice.0),
        JourneyAction::Retry { failure } => format!("retry after {}", failure.kind.label()),
        JourneyAction::GaveUpHandoffs { failure, instead } => {
            format!("no hand-off after {}: {}", failure.kind.label(), instead.label())
        }
        JourneyAction::End(Ending::Done) => "done".into(),
        JourneyAction::End(Ending::Failed(failure)) => format!("failed {}: {failure}", failure.kind.label()),
    }
}

fn show_message(message: &ToWorker) -> String {
    match message {
        ToWorker::Submit(request, work) => format!("{work:?} {}", show_request(request)),
        ToWorker::Offer(offer) => format!("offer {} of {}", show_request(&offer.request), offer.giver_address),
        ToWorker::Commit(commit) => {
            let show =
                |first: &FirstToken| format!("{}{}", first.token.token.0, if first.ended.is_some() { "!" } else { "" });
            format!(
                "commit {} [{}]",
                commit.leg.attempt.0,
                commit.firsts.iter().map(show).collect::<Vec<_>>().join(" ")
            )
        }
        ToWorker::Cancel { leg, choice: None } => format!("cancel {}", leg.attempt.0),
        ToWorker::Cancel { leg, choice: Some(choice) } => format!("cancel {} choice {}", leg.attempt.0, choice.0),
        ToWorker::Renew(legs) => format!("renew {legs:?}"),
    }
}

fn show_request(request: &crate::Request) -> String {
    let state = |choice: &crate::ChoiceState| {
        let generated: Vec<String> = choice.generated.iter().map(|token| token.0.to_string()).collect();
        format!("{}:[{}]", choice.choice.0, generated.join(" "))
    };
    let choices: Vec<String> = request.choices.iter().map(state).collect();
    format!("{} {}", request.leg.attempt.0, choices.join(" "))
}
