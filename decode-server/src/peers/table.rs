//! Table of addresses and of the givers met there; plain data under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::peer::client::Peer;
use sched::{Failure, FailureKind, InstanceId};
use tokio::sync::{Notify, watch};
use worker::started::{PairBlame, PairReport};

use super::path::{Path, Wire};

/// Limit on givers sought at one address: one process answers there, the others are its former incarnations.
const SOUGHT_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Configured,
    Learned,
}

struct LinkEntry {
    origin: Origin,
    /// Makes the link try again at once.
    wake: Arc<Notify>,
    tried: Option<Result<InstanceId, Failure>>,
    /// Givers at this address that offers wait for.
    sought: BTreeSet<InstanceId>,
}

struct Giver {
    name: String,
    path: Path,
    /// Addresses where it was met; it is lost when it is lost at all of them.
    addresses: BTreeMap<String, Met>,
}

struct Met {
    peer: Peer,
    /// True if it answered there last.
    answers: bool,
}

#[derive(Default)]
pub(super) struct Table {
    links: BTreeMap<String, LinkEntry>,
    givers: BTreeMap<InstanceId, Giver>,
}

impl Table {
    pub(super) fn know(&mut self, address: &str) -> Arc<Notify> {
        self.add_link(address, Origin::Configured, BTreeSet::new())
    }

    fn add_link(&mut self, address: &str, origin: Origin, sought: BTreeSet<InstanceId>) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        let entry = LinkEntry { origin, wake: wake.clone(), tried: None, sought };
        self.links.insert(address.to_owned(), entry);
        wake
    }

    /// Notes that an offer waits for this giver at `address`; an existing link tries again at once.
    ///
    /// # Errors
    /// A link to that address is not allowed, or too many givers are sought there.
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

    /// Ends the search at `address` and returns the givers sought there. The giver that is `there` stays sought until
    /// up.
    pub(super) fn no_longer_sought(&mut self, address: &str, there: Option<InstanceId>) -> BTreeSet<InstanceId> {
        let waits = there.filter(|giver| !self.is_up(*giver));
        let Some(link) = self.links.get_mut(address) else { return BTreeSet::new() };
        let mut sought = std::mem::take(&mut link.sought);
        link.sought.extend(there.filter(|giver| sought.remove(giver) && waits.is_some()));
        sought
    }

    /// Notes the outcome of a link's try; returns whether it is news.
    pub(super) fn tried(&mut self, address: &str, outcome: Result<InstanceId, Failure>) -> Told {
        let Some(link) = self.links.get_mut(address) else { return Told::Nothing };
        let outcome = Some(outcome);
        let is_news = link.tried != outcome;
        link.tried = outcome;
        if is_news { Told::Something } else { Told::Nothing }
    }

    /// Returns the failures of configured givers that cannot be read from, by address.
    pub(super) fn problems(&self) -> Vec<(String, Failure)> {
        let configured = self.links.iter().filter(|(_, link)| link.origin == Origin::Configured);
        let problem = |(address, link): (&String, &LinkEntry)| match &link.tried {
            Some(Err(failure)) => Some((address.clone(), failure.clone())),
            Some(Ok(_)) | None => None,
        };
        configured.filter_map(problem).collect()
    }

    pub(super) fn all_tried(&self) -> bool {
        self.links.values().all(|link| link.origin == Origin::Learned || link.tried.is_some())
    }

    /// Forgets a learned address at which no giver is sought. True if it did.
    pub(super) fn forget(&mut self, address: &str) -> bool {
        let learned = self.links.get(address).is_some_and(|link| link.origin == Origin::Learned);
        let forget = learned && self.links.get(address).is_some_and(|link| link.sought.is_empty());
        if forget {
            self.links.remove(address);
        }
        forget
    }

    /// Notes that a giver was met (again) at `address`; returns its wire, and whether the transport has to connect.
    pub(super) fn greet(&mut self, address: &str, peer: Peer, name: &str) -> (watch::Receiver<Wire>, Introduction) {
        let instance = peer.giver();
        let met = Met { peer, answers: true };
        if let Some(giver) = self.givers.get_mut(&instance) {
            giver.addresses.insert(address.to_owned(), met);
            let wire = &giver.path.wire;
            let introduction = match &*wire.borrow() {
                // The link of another of its addresses has told the transport already.
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

    pub(super) fn pull_succeeded(&mut self, giver: InstanceId) {
        if let Some(giver) = self.givers.get_mut(&giver) {
            giver.path.pull_succeeded();
        }
    }

    pub(super) fn pull_failed(&mut self, giver: InstanceId) -> bool {
        self.givers.get_mut(&giver).is_some_and(|giver| giver.path.pull_failed())
    }

    /// Notes that a giver is silent at `address`: calls then use another of its addresses, if there is one.
    pub(super) fn fell_silent(&mut self, address: &str, giver: InstanceId) {
        if let Some(met) = self.givers.get_mut(&giver).and_then(|giver| giver.addresses.get_mut(address)) {
            met.answers = false;
        }
    }

    /// Removes an address of a giver, and the giver with its last address.
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

    /// Has the links that met this giver try again.
    pub(super) fn look_again(&self, giver: InstanceId) {
        for link in self.links.values().filter(|link| link.tried == Some(Ok(giver))) {
            link.wake.notify_one();
        }
    }

    /// Returns the connection to a giver, at an address where it answers if there is one.
    pub(super) fn peer(&self, giver: InstanceId) -> Option<Peer> {
        let addresses = &self.givers.get(&giver)?.addresses;
        addresses.values().max_by_key(|met| met.answers).map(|met| met.peer.clone())
    }

    /// Returns the name of a giver, or its instance if it is not known any more.
    pub(super) fn name(&self, giver: InstanceId) -> String {
        self.givers.get(&giver).map_or_else(|| giver.to_string(), |giver| giver.name.clone())
    }

    pub(super) fn is_up(&self, giver: InstanceId) -> bool {
        self.rate(giver).is_some()
    }

    /// Returns the givers that can be read from, with their rate in bytes per second.
    pub(super) fn up(&self) -> Vec<(InstanceId, f64)> {
        self.givers.keys().filter_map(|giver| Some((*giver, self.rate(*giver)?))).collect()
    }

    fn rate(&self, giver: InstanceId) -> Option<f64> {
        match *self.givers.get(&giver)?.path.wire.borrow() {
            Wire::Up { bytes_per_second } => Some(bytes_per_second),
            Wire::Connecting | Wire::Down { .. } => None,
        }
    }

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

/// State of a giver that an offer waits for.
pub(super) enum Sought {
    /// The giver can be read from.
    Up,
    /// There is a link to its address.
    Known,
    /// The caller has to start a link, which this wakes.
    New(Arc<Notify>),
}

/// Rule for addresses that an offer names and the configuration does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learning {
    /// Refused: without a secret any process may be the router.
    Forbidden,
    /// Accepted from a router that knows the secret, while there are fewer links than this.
    UpTo(usize),
}

/// Effect of losing one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The giver's process is gone.
    Complete,
    /// The giver is still held under another address.
    HeldElsewhere,
}

/// Whether the outcome of a try is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The outcome is new.
    Something,
    /// The outcome is that of the try before.
    Nothing,
}

/// Whether the transport has to connect to a giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Introduction {
    /// It is connected or connecting.
    Known,
    /// It has to connect.
    Needed,
}
