//! Who answers where, and which givers can be read from; plain data under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::peer::client::Peer;
use sched::{Failure, FailureKind, InstanceId};
use tokio::sync::{Notify, watch};
use worker::started::{PairBlame, PairReport};

use super::path::{Path, Wire};

/// Givers that are sought at one address: one process answers there, others are its former lives.
const SOUGHT_MAX: usize = 1024;

/// Why there is a link to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The configuration names it.
    Configured,
    /// An offer named it.
    Learned,
}

/// One address.
struct LinkEntry {
    origin: Origin,
    /// Makes the link look again, at once.
    wake: Arc<Notify>,
    tried: Option<Result<InstanceId, Failure>>,
    /// Givers that offers wait for, and that are said to be here.
    sought: BTreeSet<InstanceId>,
}

/// One process that was met.
struct Giver {
    /// What it is called.
    name: String,
    path: Path,
    /// Where it was met; it is lost when it is lost at all of them.
    addresses: BTreeMap<String, Met>,
}

/// A process at one of its addresses.
struct Met {
    peer: Peer,
    /// Whether it answered there last.
    answers: bool,
}

/// All links and givers.
#[derive(Default)]
pub(super) struct Table {
    links: BTreeMap<String, LinkEntry>,
    givers: BTreeMap<InstanceId, Giver>,
}

impl Table {
    /// Adds a configured address.
    pub(super) fn know(&mut self, address: &str) -> Arc<Notify> {
        self.add_link(address, Origin::Configured, BTreeSet::new())
    }

    fn add_link(&mut self, address: &str, origin: Origin, sought: BTreeSet<InstanceId>) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        let entry = LinkEntry { origin, wake: wake.clone(), tried: None, sought };
        self.links.insert(address.to_owned(), entry);
        wake
    }

    /// An offer waits for this giver, which is said to be at `address`: where there is a link, it looks at once.
    ///
    /// # Errors
    /// There may be no link to that address, or more is sought there than can be meant.
    pub(super) fn seek(&mut self, giver: InstanceId, address: &str, learning: Learning) -> Result<Sought, Failure> {
        if self.is_up(giver) {
            return Ok(Sought::Up);
        }
        if let Some(link) = self.links.get_mut(address) {
            if link.sought.len() >= SOUGHT_MAX && !link.sought.contains(&giver) {
                let detail = format!("{SOUGHT_MAX} givers are sought at {address}, that is enough");
                return Err(Failure::new(FailureKind::Overloaded, detail));
            }
            link.sought.insert(giver);
            link.wake.notify_one();
            return Ok(Sought::Known);
        }
        let unavailable = |detail: String| Err(Failure::new(FailureKind::Unavailable, detail));
        match learning {
            Learning::Forbidden => unavailable(format!("the giver at {address} is none of decode.peers")),
            Learning::UpTo(links_max) if self.links.len() >= links_max => {
                unavailable(format!("{links_max} givers are known already, {address} would be one more"))
            }
            Learning::UpTo(_) => {
                let wake = self.add_link(address, Origin::Learned, BTreeSet::from([giver]));
                Ok(Sought::New(wake))
            }
        }
    }

    /// Whoever was sought at `address`; from now on nobody is, but for one that is there and not up yet, or not any more.
    pub(super) fn no_longer_sought(&mut self, address: &str, there: Option<InstanceId>) -> BTreeSet<InstanceId> {
        let waits = there.filter(|giver| !self.is_up(*giver));
        let Some(link) = self.links.get_mut(address) else { return BTreeSet::new() };
        let mut sought = std::mem::take(&mut link.sought);
        link.sought.extend(there.filter(|giver| sought.remove(giver) && waits.is_some()));
        sought
    }

    /// Notes the outcome of a link's try; says whether that is news.
    pub(super) fn tried(&mut self, address: &str, outcome: Result<InstanceId, Failure>) -> Told {
        let Some(link) = self.links.get_mut(address) else { return Told::Nothing };
        let outcome = Some(outcome);
        let is_news = link.tried != outcome;
        link.tried = outcome;
        if is_news { Told::Something } else { Told::Nothing }
    }

    /// Why configured givers cannot be read from, by address.
    pub(super) fn problems(&self) -> Vec<(String, Failure)> {
        let configured = self.links.iter().filter(|(_, link)| link.origin == Origin::Configured);
        let problem = |(address, link): (&String, &LinkEntry)| match &link.tried {
            Some(Err(failure)) => Some((address.clone(), failure.clone())),
            Some(Ok(_)) | None => None,
        };
        configured.filter_map(problem).collect()
    }

    /// Whether every configured address was tried once.
    pub(super) fn all_tried(&self) -> bool {
        self.links.values().all(|link| link.origin == Origin::Learned || link.tried.is_some())
    }

    /// Forgets an address that only an offer named and nothing waits for. True if it did.
    pub(super) fn forget(&mut self, address: &str) -> bool {
        let learned = self.links.get(address).is_some_and(|link| link.origin == Origin::Learned);
        let forget = learned && self.links.get(address).is_some_and(|link| link.sought.is_empty());
        if forget {
            self.links.remove(address);
        }
        forget
    }

    /// A giver was met (again) at `address`: its wire, and whether the transport has to be told.
    pub(super) fn greet(&mut self, address: &str, peer: Peer, name: &str) -> (watch::Receiver<Wire>, Introduction) {
        let instance = peer.giver();
        let met = Met { peer, answers: true };
        if let Some(giver) = self.givers.get_mut(&instance) {
            giver.addresses.insert(address.to_owned(), met);
            let wire = &giver.path.wire;
            let introduction = match &*wire.borrow() {
                // Another link that has met it under another address has told the transport a moment ago.
                Wire::Up { .. } | Wire::Connecting => Introduction::Known,
                Wire::Down { .. } => Introduction::Needed,
            };
            if introduction == Introduction::Needed {
                wire.send_replace(Wire::Connecting);
            }
            return (wire.subscribe(), introduction);
        }
        let path = Path::connecting();
        let watching = path.wire.subscribe();
        let (name, addresses) = (name.to_owned(), BTreeMap::from([(address.to_owned(), met)]));
        self.givers.insert(instance, Giver { name, path, addresses });
        (watching, Introduction::Needed)
    }

    pub(super) fn set_wire(&mut self, giver: InstanceId, wire: Wire) {
        if let Some(giver) = self.givers.get(&giver) {
            giver.path.wire.send_replace(wire);
        }
    }

    /// A pull from the giver has succeeded: its path is well.
    pub(super) fn pull_succeeded(&mut self, giver: InstanceId) {
        if let Some(giver) = self.givers.get_mut(&giver) {
            giver.path.pull_succeeded();
        }
    }

    /// A pull from the giver has failed. True when so many have in a row that its path cannot be trusted any more.
    pub(super) fn pull_failed(&mut self, giver: InstanceId) -> bool {
        self.givers.get_mut(&giver).is_some_and(|giver| giver.path.pull_failed())
    }

    /// The giver does not answer at `address`: whoever calls it takes another of its addresses, if it has one.
    pub(super) fn fell_silent(&mut self, address: &str, giver: InstanceId) {
        if let Some(met) = self.givers.get_mut(&giver).and_then(|giver| giver.addresses.get_mut(address)) {
            met.answers = false;
        }
    }

    /// The giver does not answer at `address` any more.
    pub(super) fn lose(&mut self, address: &str, giver: InstanceId) -> Loss {
        if let Some(known) = self.givers.get_mut(&giver) {
            known.addresses.remove(address);
            if !known.addresses.is_empty() {
                return Loss::HeldElsewhere;
            }
        }
        self.givers.remove(&giver);
        Loss::Complete
    }

    /// Makes the links look again that have met this giver.
    pub(super) fn look_again(&self, giver: InstanceId) {
        for link in self.links.values().filter(|link| link.tried == Some(Ok(giver))) {
            link.wake.notify_one();
        }
    }

    /// How to call a giver: at an address where it answers, if there is one.
    pub(super) fn peer(&self, giver: InstanceId) -> Option<Peer> {
        let addresses = &self.givers.get(&giver)?.addresses;
        addresses.values().max_by_key(|met| met.answers).map(|met| met.peer.clone())
    }

    /// What a giver is called; one that is not known any more has only its number.
    pub(super) fn name(&self, giver: InstanceId) -> String {
        self.givers.get(&giver).map_or_else(|| giver.to_string(), |giver| giver.name.clone())
    }

    pub(super) fn is_up(&self, giver: InstanceId) -> bool {
        self.rate(giver).is_some()
    }

    /// Givers that can be read from, with their speed.
    pub(super) fn up(&self) -> Vec<(InstanceId, f64)> {
        self.givers.keys().filter_map(|giver| Some((*giver, self.rate(*giver)?))).collect()
    }

    fn rate(&self, giver: InstanceId) -> Option<f64> {
        match *self.givers.get(&giver)?.path.wire.borrow() {
            Wire::Up { bytes_per_second } => Some(bytes_per_second),
            Wire::Connecting | Wire::Down { .. } => None,
        }
    }

    /// How each configured giver fares.
    pub(super) fn reports(&self, transport: &str) -> Vec<PairReport> {
        let configured = self.links.iter().filter(|(_, link)| link.origin == Origin::Configured);
        let report = |(address, link): (&String, &LinkEntry)| {
            let (rate, problem) = match &link.tried {
                None => (None, Some("not tried within the time readiness waits".to_owned())),
                Some(Err(failure)) => (None, Some(failure.detail.clone())),
                Some(Ok(giver)) => match self.rate(*giver) {
                    Some(rate) => (Some(rate as u64), None),
                    None => (None, Some("it went down again".to_owned())),
                },
            };
            let transport = transport.to_owned();
            let blame = match &link.tried {
                Some(Err(failure)) if failure.kind == FailureKind::Incompatible => PairBlame::Workers,
                _ => PairBlame::Transport,
            };
            PairReport { giver: address.clone(), transport, bytes_per_second: rate, problem, blame }
        };
        configured.map(report).collect()
    }
}

/// Where a giver stands that an offer waits for.
pub(super) enum Sought {
    /// It can be read from.
    Up,
    /// There is a link to its address.
    Known,
    /// There is one now, which this wakes.
    New(Arc<Notify>),
}

/// Whether an offer may name an address that the configuration does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learning {
    /// Nobody vouches for it: without a secret anybody may be the router.
    Forbidden,
    /// A router that knows the secret does. As long as there are fewer addresses than this.
    UpTo(usize),
}

/// What the loss of one address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The giver's process is gone.
    Complete,
    /// It is held under another address.
    HeldElsewhere,
}

/// Whether a try has told anything that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It has.
    Something,
    /// It went as the one before.
    Nothing,
}

/// Whether the transport has to meet a giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Introduction {
    /// It reads from it already.
    Known,
    /// It has to connect.
    Needed,
}
