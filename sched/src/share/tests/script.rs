//! A tiny language for scenarios: one fact per line in, the decisions that follow it out.
//!
//! `feedback prefill=50 ttft=1000 tpot=100` is the configuration; then `after 10s`, `first 900ms x20` (first tokens),
//! `decoded 80ms x20`, `ended met=45 missed=5`, `waiting 3s`, `kv 75%`, `prefill tokens=500 20ms x10` and `decode
//! batch=8 9ms x10` (steps beside a busy lane), `pin 62%`, `pin all`, `release`.

use std::fmt::Write as _;

use expect_test::Expect;

use crate::cost::StepWork;
use crate::share::{
    Decision, Divisions, Event, IdleShare, Latencies, ShareConfig, ShareController, SharePolicy, Split, Waiting,
    WorkerState,
};
use crate::slo::Judgement;
use crate::{Slo, Span, Time};

/// Runs a script and compares every decision. The device has 20 parts.
#[expect(clippy::needless_pass_by_value, reason = "an expectation is used once")]
pub(super) fn check(script: &str, expected: Expect) {
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut world = World::new(lines.next().expect("a configuration"));
    world.show();
    lines.for_each(|line| world.run_line(line));
    expected.assert_eq(&world.log);
}

struct World {
    controller: ShareController,
    slo: Slo,
    now: Time,
    state: WorkerState,
    log: String,
}

/// Words of a line: `name=number`, `number` with a unit, `xnumber`.
struct Words<'a>(Vec<&'a str>);

impl Words<'_> {
    fn named(&self, name: &str) -> Option<u64> {
        let found = self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.map(|number| number.parse().expect("a number"))
    }

    fn with_unit(&self, unit: &str) -> Option<u64> {
        self.0.iter().find_map(|word| word.strip_suffix(unit)?.parse().ok())
    }

    fn span(&self) -> Span {
        let ms = self.with_unit("ms").map(Span::from_ms);
        ms.or_else(|| self.with_unit("s").map(Span::from_secs)).expect("a time")
    }

    fn times(&self) -> u64 {
        self.0.iter().find_map(|word| word.strip_prefix('x')?.parse().ok()).unwrap_or(1)
    }
}

impl World {
    fn new(line: &str) -> World {
        let words = Words(line.split_whitespace().collect());
        let policy = match words.0[0] {
            "fixed" => SharePolicy::Fixed,
            "oversubscribed" => SharePolicy::Oversubscribed,
            "feedback" => SharePolicy::Feedback,
            "predictive" => SharePolicy::Predictive,
            other => panic!("unknown policy {other}"),
        };
        let (ttft_ms, tpot_ms) = (words.named("ttft").unwrap_or(0), words.named("tpot").unwrap_or(0));
        let prefill_percent = words.named("prefill").unwrap_or(50) as u32;
        let config = ShareConfig { policy, prefill_percent, ttft_ms, tpot_ms, ..ShareConfig::default() };
        let device = Divisions::new(20, IdleShare::Lent).expect("20 parts");
        let target = |ms| (ms > 0).then(|| Span::from_ms(ms));
        World {
            controller: ShareController::new(&config, device, Time(0)).expect("a configuration"),
            slo: Slo { ttft: target(ttft_ms), tpot: target(tpot_ms), ..Slo::default() },
            now: Time(0),
            state: WorkerState { blocks_total: 100, ..WorkerState::default() },
            log: String::new(),
        }
    }

    fn run_line(&mut self, line: &str) {
        let words = Words(line.split_whitespace().collect());
        let slo = self.slo;
        match words.0[0] {
            "after" => {
                self.now = self.now + words.span();
                self.on(Event::Tick, 1);
            }
            "first" => self.on(Event::FirstToken { slo, ttft: words.span() }, words.times()),
            "decoded" => self.on(Event::Decoded { slo, tokens: 10, tpot: words.span() }, words.times()),
            "ended" => {
                self.on(Event::Finished(Judgement::Met), words.named("met").unwrap_or(0));
                self.on(Event::Finished(Judgement::Missed), words.named("missed").unwrap_or(0));
            }
            "waiting" => {
                let since = Time(self.now.0 - words.span().us());
                self.state.oldest_waiting = Some(Waiting { slo, since });
                self.on(Event::State(self.state), 1);
            }
            "kv" => {
                self.state.blocks_in_use = words.with_unit("%").expect("per cent") as u32;
                self.on(Event::State(self.state), 1);
            }
            "prefill" => {
                let tokens = words.named("tokens").expect("tokens") as u32;
                self.steps(StepWork::default().with_chunk(0..tokens), &words);
            }
            "decode" => {
                let batch = words.named("batch").expect("batch");
                self.steps((0..batch).fold(StepWork::default(), |work, _| work.with_decode(1_000)), &words);
            }
            "pin" if words.0[1] == "all" => self.on(Event::Pin(Split::Oversubscribed), 1),
            "pin" => {
                let percent = words.with_unit("%").expect("per cent") as u32;
                self.on(Event::Pin(Split::prefill_percent(percent).expect("a share")), 1);
            }
            "release" => self.on(Event::Release, 1),
            other => panic!("unknown word {other}"),
        }
    }

    fn steps(&mut self, work: StepWork, words: &Words<'_>) {
        self.on(Event::StepDone { work, span: words.span(), beside: 1.0 }, words.times());
    }

    fn on(&mut self, event: Event, times: u64) {
        for _ in 0..times {
            self.controller.on(self.now, event);
            self.show();
        }
    }

    fn show(&mut self) {
        while let Some(decision) = self.controller.poll() {
            assert_eq!((self.controller.split(), self.controller.last()), (decision.split, &decision));
            let seconds = self.now.0 as f64 / 1e6;
            writeln!(self.log, "{seconds} s: {}", show_decision(&decision)).expect("a string grows");
        }
    }
}

fn show_decision(decision: &Decision) -> String {
    let mut shown = show_split(decision.before);
    if decision.switches() {
        let _ = write!(shown, " -> {}", show_split(decision.split));
    }
    if decision.wanted != decision.split {
        let _ = write!(shown, " (for {})", show_split(decision.wanted));
    }
    let _ = write!(shown, " {}", decision.reason.label());
    for (name, latencies) in
        [("measured", decision.measured), ("for", decision.predicted_before), ("predicted", decision.predicted)]
    {
        if latencies != Latencies::default() {
            let ms =
                |span: Option<Span>| span.map_or("-".to_owned(), |span| (span.us() as f64 / 1e3).round().to_string());
            let _ = write!(shown, ", {name} {}/{} ms", ms(latencies.prefill), ms(latencies.decode));
        }
    }
    if decision.model_calls > 0 {
        let _ = write!(shown, " by {} calls", decision.model_calls);
    }
    if let Some(window) = decision.window {
        let _ = write!(shown, "; {} of {} met", window.met, window.requests);
    }
    shown
}

fn show_split(split: Split) -> String {
    match split {
        Split::Divided { prefill } => format!("{}%", f64::from(prefill.thousandths()) / 10.0),
        Split::Oversubscribed => "all".to_owned(),
    }
}
