//! Replica threads with a tiny router between them: aggregated, or prefill and decode with a hand-off.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use engine::replica::{Command, Outbound, Outlet, PeerInfo};
use engine::{Config, NoRankProgram, RankProgram, Started, TransportChoice, start, start_with_ranks};
use sched::layout::Resharding;
use sched::message::{Commit, Envelope, FromWorker, Load, Offer, ToWorker, Work};
use sched::replica::Event;
use sched::{Failure, FinishReason, InstanceId, Leg, Request, Role, SampledToken, Score, Scores, TokenId};

use super::requests::work;

const PATIENCE: Duration = Duration::from_secs(120);
/// Name of the only decode worker at the giver.
const READER: InstanceId = InstanceId(1);

/// One token with the exact bits of its log-probabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exact {
    pub token: u32,
    pub logprob: Option<u32>,
    pub top: Vec<(u32, u32)>,
    pub ended: Option<FinishReason>,
    /// Rank of a prompt token among all.
    pub rank: Option<u32>,
}

impl Exact {
    pub fn new(sampled: &SampledToken, ended: Option<FinishReason>) -> Exact {
        Exact {
            token: sampled.token.0,
            logprob: sampled.logprob.map(f32::to_bits),
            top: sampled.top.iter().map(|(token, logprob)| (token.0, logprob.to_bits())).collect(),
            ended,
            rank: None,
        }
    }

    /// The score of a prompt token.
    pub fn scored(token: TokenId, score: &Score) -> Exact {
        let sampled = SampledToken { token, logprob: Some(score.logprob), top: score.top.clone() };
        Exact { rank: Some(score.rank), ..Exact::new(&sampled, None) }
    }
}

/// Stands for the prompt among the choices of a request.
pub const PROMPT: u32 = u32::MAX;

/// Takes scores of a prompt, which come again if it was preempted.
pub fn take_scores(texts: &mut Texts, leg: Leg, prompt: &[TokenId], scores: &Scores) {
    let text = texts.entry((leg.request.0, PROMPT)).or_default();
    text.truncate(scores.first as usize - 1);
    assert_eq!(text.len() + 1, scores.first as usize, "{leg}");
    let tokens = prompt.iter().skip(scores.first as usize);
    text.extend(tokens.zip(&scores.scores).map(|(token, score)| Exact::scored(*token, score)));
}

/// Generated tokens by (request, choice), and scores of prompts.
pub type Texts = BTreeMap<(u64, u32), Vec<Exact>>;

pub fn config(model_dir: &Path) -> Config {
    Config {
        model_dir: model_dir.to_path_buf(),
        kv_pool: engine::KvPool::Blocks(512),
        sequences_max: 32,
        step_tokens_max: 512,
        threads: 1,
        context_max: 512,
        transport: TransportChoice::InProcess,
        weights_cache: "off".to_owned(),
        ..Config::default()
    }
}

struct ToChannel {
    name: Name,
    out: Sender<(Name, Outbound)>,
}

impl Outlet for ToChannel {
    fn put(&mut self, out: Outbound) {
        let _test_has_ended = self.out.send((self.name, out));
    }

    fn flush(&mut self) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// Prefill or aggregated.
    First,
    Decode,
}

/// One or two workers, and what they have said.
pub struct Workers {
    pub first: Started,
    pub decode: Option<Started>,
    said: Receiver<(Name, Outbound)>,
    texts: Texts,
    open: BTreeMap<Leg, Request>,
    /// Last load of each worker; the key is true for the decode worker.
    loads: BTreeMap<bool, Load>,
    pub bytes_moved: u64,
    /// Requests that may fail without failing the test.
    pub may_fail: BTreeSet<u64>,
    /// Failures of such requests.
    pub failures: BTreeMap<u64, Failure>,
}

impl Workers {
    pub fn aggregated(config: &Config) -> Result<Workers> {
        Workers::aggregated_with(config, &NoRankProgram)
    }

    /// One aggregated worker whose ranks may be processes of `program`.
    pub fn aggregated_with(config: &Config, program: &dyn RankProgram) -> Result<Workers> {
        let (out, said) = unbounded();
        let outlet = Box::new(ToChannel { name: Name::First, out });
        let first = start_with_ranks(config, Role::Aggregated, outlet, program)?;
        Ok(Workers::new(first, None, said))
    }

    /// A prefill and a decode worker, connected.
    pub fn disaggregated(prefill: &Config, decode: &Config) -> Result<Workers> {
        let (out, said) = unbounded();
        let first = start(prefill, Role::Prefill, Box::new(ToChannel { name: Name::First, out: out.clone() }))?;
        let decode = start(decode, Role::Decode, Box::new(ToChannel { name: Name::Decode, out }))?;
        assert_eq!(first.info.compat_key(), decode.info.compat_key());
        let peer = PeerInfo {
            instance: first.info.instance,
            resharding: Resharding::of_all(&first.info.layout, &decode.info.layout)?,
            blocks: first.info.blocks,
            endpoint: first.endpoint.clone(),
        };
        decode.handle.send(Command::AddPeer(Box::new(peer)))?;
        let mut workers = Workers::new(first, Some(decode), said);
        workers.until(|_, out| match out {
            Outbound::PeerUp { .. } => Ok(true),
            Outbound::PeerDown { reason, .. } => bail!("peer down: {reason}"),
            _ => Ok(false),
        })?;
        Ok(workers)
    }

    fn new(first: Started, decode: Option<Started>, said: Receiver<(Name, Outbound)>) -> Workers {
        Workers {
            first,
            decode,
            said,
            texts: BTreeMap::new(),
            may_fail: BTreeSet::new(),
            failures: BTreeMap::new(),
            open: BTreeMap::new(),
            loads: BTreeMap::new(),
            bytes_moved: 0,
        }
    }

    /// Runs all requests at once, and returns every token.
    pub fn run(&mut self, requests: &[Request]) -> Result<Texts> {
        self.texts.clear();
        for request in requests {
            let work = if self.decode.is_some() { work(request) } else { Work::Whole };
            self.open.insert(request.leg, request.clone());
            self.first.handle.send(Event::Router(ToWorker::Submit(request.clone(), work)))?;
        }
        while !self.open.is_empty() {
            let (name, out) = self.hear()?;
            self.take(name, out)?;
        }
        Ok(std::mem::take(&mut self.texts))
    }

    pub fn run_alone(&mut self, requests: &[Request]) -> Result<Texts> {
        let mut texts = Texts::new();
        for request in requests {
            texts.extend(self.run(std::slice::from_ref(request))?);
        }
        Ok(texts)
    }

    /// Waits until no worker holds a block.
    pub fn settle(&mut self) -> Result<()> {
        self.loads.clear();
        let workers = 1 + usize::from(self.decode.is_some());
        while self.loads.len() < workers || self.loads.values().any(|load| load.blocks_in_use + load.held > 0) {
            let (name, out) = self.hear()?;
            self.take(name, out)?;
        }
        Ok(())
    }

    fn hear(&self) -> Result<(Name, Outbound)> {
        match self.said.recv_timeout(PATIENCE) {
            Ok(said) => Ok(said),
            Err(RecvTimeoutError::Timeout) => bail!("nothing was said for {PATIENCE:?}; open: {:?}", self.open.keys()),
            Err(RecvTimeoutError::Disconnected) => bail!("both workers are gone"),
        }
    }

    fn until(&mut self, mut done: impl FnMut(Name, &Outbound) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let (name, out) = self.hear()?;
            if done(name, &out)? {
                return Ok(());
            }
            self.take(name, out)?;
        }
        bail!("not done after {PATIENCE:?}")
    }

    fn take(&mut self, name: Name, out: Outbound) -> Result<()> {
        match out {
            Outbound::Say(Envelope::Router(word)) => self.told(name, word),
            Outbound::Say(Envelope::Giver(_, word)) => Ok(self.first.handle.send(Event::Reader(READER, word))?),
            Outbound::Say(Envelope::Reader(_, word)) => self.to_decode(Event::Giver(self.first.info.instance, word)),
            Outbound::Load(load) => {
                self.loads.insert(name == Name::Decode, load);
                Ok(())
            }
            Outbound::Transferred { bytes, .. } => {
                self.bytes_moved += bytes;
                Ok(())
            }
            // The transport has connected before the first request.
            Outbound::Meet { giver, .. } => self.to_decode(Event::GiverUp(giver)),
            Outbound::Say(Envelope::Over(_)) | Outbound::PeerUp { .. } | Outbound::Stepped { .. } => Ok(()),
            Outbound::Divided { .. } | Outbound::Used(_) => Ok(()),
            Outbound::PeerDown { reason, .. } => bail!("peer down: {reason}"),
            Outbound::InvariantBroken(detail) => bail!("invariant broken: {detail}"),
            Outbound::Stopped(failure) => bail!("{name:?} stopped: {failure:?}"),
        }
    }

    fn to_decode(&self, event: Event) -> Result<()> {
        Ok(self.decode.as_ref().context("no decode worker")?.handle.send(event)?)
    }

    fn told(&mut self, name: Name, message: FromWorker) -> Result<()> {
        match message {
            FromWorker::Offered { leg, lease, blocks } => {
                let request = self.open.get(&leg).context("an unknown leg is offered")?.clone();
                let giver = self.first.info.instance;
                let offer = Offer { request, giver, giver_address: "unused".into(), lease, blocks };
                self.to_decode(Event::Router(ToWorker::Offer(offer)))
            }
            FromWorker::Committed { commit, .. } => self.committed(commit),
            FromWorker::Token { leg, choice, index, token, ended, .. } => {
                let text = self.texts.entry((leg.request.0, choice.0)).or_default();
                assert_eq!(text.len(), index as usize, "{name:?} {leg} {choice}");
                text.push(Exact::new(&token, ended));
                self.close_if_done(leg);
                Ok(())
            }
            FromWorker::Scored { leg, scores } => self.scored(leg, &scores),
            FromWorker::HandedOver { .. } => Ok(()),
            FromWorker::ReaderLost { leg } => bail!("{name:?} lost the reader of {leg}"),
            FromWorker::Failed { leg, failure } if self.may_fail.contains(&leg.request.0) => {
                self.open.remove(&leg);
                self.failures.insert(leg.request.0, failure);
                // As a router does: cancels the leg at the other worker.
                match name {
                    Name::First => self.decode.as_ref().map_or(Ok(()), |decode| decode.handle.send(cancel(leg))),
                    Name::Decode => self.first.handle.send(cancel(leg)),
                }
                .map_err(anyhow::Error::from)
            }
            FromWorker::Failed { leg, failure } => bail!("{name:?} failed {leg}: {failure}"),
        }
    }

    fn scored(&mut self, leg: Leg, scores: &Scores) -> Result<()> {
        let prompt = &self.open.get(&leg).context("an unknown leg is scored")?.prompt;
        take_scores(&mut self.texts, leg, prompt, scores);
        Ok(())
    }

    fn committed(&mut self, commit: Commit) -> Result<()> {
        let leg = commit.leg;
        for first in &commit.firsts {
            let text = self.texts.entry((leg.request.0, first.choice.0)).or_default();
            text.push(Exact::new(&first.token, first.ended));
        }
        if commit.firsts.iter().any(|first| first.ended.is_none()) {
            self.to_decode(Event::Router(ToWorker::Commit(commit)))?;
        } else {
            self.to_decode(Event::Router(ToWorker::Cancel { leg, choice: None }))?;
        }
        self.close_if_done(leg);
        Ok(())
    }

    fn close_if_done(&mut self, leg: Leg) {
        let Some(request) = self.open.get(&leg) else { return };
        let ended = |choice: u32| {
            let text = self.texts.get(&(leg.request.0, choice));
            text.and_then(|text| text.last()).is_some_and(|last| last.ended.is_some())
        };
        if request.choices.iter().all(|state| ended(state.choice.0)) {
            self.open.remove(&leg);
        }
    }
}

fn cancel(leg: Leg) -> Event {
    Event::Router(ToWorker::Cancel { leg, choice: None })
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.first.handle.shutdown();
        if let Some(decode) = &self.decode {
            decode.handle.shutdown();
        }
    }
}

/// Asserts that two sets of texts are equal; lists the differences.
pub fn assert_equal(expected: &Texts, found: &Texts, context: &str) {
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "{context}");
    for (key, text) in expected {
        assert_eq!(text, &found[key], "{context}: request {}, choice {}", key.0, key.1);
    }
}
