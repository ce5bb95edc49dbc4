//! Offers whose giver is not up yet, each with everything that was said about its leg since; knows no connection.

use std::collections::BTreeMap;

use sched::message::{Offer, ToWorker};
use sched::{Failure, FailureKind, InstanceId, Leg};

/// Offers that wait at a time.
const OFFERS_MAX: usize = 1024;
/// Bytes of their prompts and block tables at a time.
const BYTES_MAX: usize = 64 << 20;
/// Messages that wait behind one offer: its commit and the ends of its choices.
const FOLLOWERS_MAX: usize = 256;

struct Leaf {
    address: String,
    giver: InstanceId,
    bytes: usize,
    messages: Vec<ToWorker>,
}

/// Offers that wait.
#[derive(Default)]
pub(super) struct Parked {
    legs: BTreeMap<Leg, Leaf>,
    bytes: usize,
}

impl Parked {
    /// An offer waits for whoever answers at `address`.
    ///
    /// # Errors
    /// Too much waits already.
    pub(super) fn park(&mut self, address: &str, offer: Offer) -> Result<(), Failure> {
        let (leg, giver, bytes) = (offer.request.leg, offer.giver, bytes_of(&offer));
        if self.legs.len() >= OFFERS_MAX || self.bytes + bytes > BYTES_MAX {
            let detail = format!("{} offers wait for givers that are not up yet, that is enough", self.legs.len());
            return Err(Failure::new(FailureKind::Overloaded, detail));
        }
        self.bytes += bytes;
        let leaf = Leaf { address: address.to_owned(), giver, bytes, messages: vec![ToWorker::Offer(offer)] };
        self.legs.insert(leg, leaf);
        Ok(())
    }

    /// Keeps the order of a parked leg: what is about one waits with it. Gives back what is not.
    pub(super) fn follow(&mut self, message: ToWorker) -> Option<ToWorker> {
        let leg = match &message {
            ToWorker::Commit(commit) => commit.leg,
            ToWorker::Cancel { leg, .. } => *leg,
            ToWorker::Submit(..) | ToWorker::Offer(_) | ToWorker::Renew(_) => return Some(message),
        };
        let Some(leaf) = self.legs.get_mut(&leg) else { return Some(message) };
        match message {
            // Nothing of the leg has reached the replica: it ends here.
            ToWorker::Cancel { choice: None, .. } => {
                self.bytes -= leaf.bytes;
                self.legs.remove(&leg);
            }
            message if leaf.messages.len() <= FOLLOWERS_MAX => leaf.messages.push(message),
            message => tracing::warn!(%leg, ?message, "more waits behind an offer than can be meant; it is dropped"),
        }
        None
    }

    /// Takes out everything that waits for `address`: leg, giver, messages in order.
    pub(super) fn take(&mut self, address: &str) -> Vec<(Leg, InstanceId, Vec<ToWorker>)> {
        let legs = std::mem::take(&mut self.legs).into_iter();
        let (waiting, others): (Vec<_>, Vec<_>) = legs.partition(|(_, leaf)| leaf.address == address);
        self.legs = others.into_iter().collect();
        self.bytes = self.legs.values().map(|leaf| leaf.bytes).sum();
        waiting.into_iter().map(|(leg, leaf)| (leg, leaf.giver, leaf.messages)).collect()
    }

    /// Whether anything waits for `address`.
    pub(super) fn waits_for(&self, address: &str) -> bool {
        self.legs.values().any(|leaf| leaf.address == address)
    }
}

/// What an offer holds in memory, give or take a constant.
fn bytes_of(offer: &Offer) -> usize {
    let request = &offer.request;
    let generated: usize = request.choices.iter().map(|choice| choice.generated.len()).sum();
    let params = request.params.logit_bias.len() + request.params.stop_tokens.len();
    1024 + 4 * (request.prompt.len() + generated + offer.blocks.len()) + 8 * params
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sched::message::Commit;
    use sched::{Attempt, BlockId, Choice, ChoiceState, LeaseId, Request, RequestId, Slo, Span, TokenId};

    use super::*;

    fn leg(request: u64) -> Leg {
        Leg { request: RequestId(request), attempt: Attempt(0) }
    }

    fn offer(request: u64) -> Offer {
        let request = Request {
            leg: leg(request),
            prompt: vec![TokenId(1)].into(),
            choices: vec![ChoiceState { choice: Choice(0), generated: vec![] }],
            params: Arc::default(),
            slo: Slo::default(),
            deadline_in: Span::from_secs(1),
        };
        let (giver, giver_address) = (InstanceId(7), "giver:1".into());
        Offer { request, giver, giver_address, lease: LeaseId(1), blocks: vec![BlockId(0)] }
    }

    #[test]
    fn messages_about_a_parked_leg_wait_behind_its_offer() {
        let mut parked = Parked::default();
        parked.park("giver:1", offer(1)).unwrap();
        let commit = |request| ToWorker::Commit(Commit { leg: leg(request), firsts: vec![] });
        let renew = ToWorker::Renew(vec![leg(1)]);
        assert_eq!(parked.follow(commit(1)), None);
        assert_eq!(parked.follow(commit(2)), Some(commit(2)), "another leg is not held up");
        assert_eq!(parked.follow(renew.clone()), Some(renew));
        let one_choice = ToWorker::Cancel { leg: leg(1), choice: Some(Choice(0)) };
        assert_eq!(parked.follow(one_choice.clone()), None);
        assert!(parked.take("other:1").is_empty());
        let taken = parked.take("giver:1");
        assert_eq!(taken, [(leg(1), InstanceId(7), vec![ToWorker::Offer(offer(1)), commit(1), one_choice])]);
        assert!(!parked.waits_for("giver:1"));
    }

    /// Found by reading: 65,536 legs per session, each with a prompt of up to 4 MiB, could wait for a giver that nobody is.
    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut parked = Parked::default();
        let parks = |parked: &mut Parked, request, tokens| {
            let mut offer = offer(request);
            offer.request.prompt = vec![TokenId(1); tokens].into();
            parked.park("giver:1", offer)
        };
        let small = (0..2000).take_while(|request| parks(&mut parked, *request, 10).is_ok()).count();
        assert_eq!(small, OFFERS_MAX);
        assert_eq!(parked.take("giver:1").len(), OFFERS_MAX);
        let large = (0..2000).take_while(|request| parks(&mut parked, *request, 1 << 20).is_ok()).count();
        assert!((10..=16).contains(&large), "{large} prompts of 4 MiB");
        assert_eq!(parks(&mut parked, 77, 1 << 20).unwrap_err().kind, FailureKind::Overloaded);
        assert_eq!(parked.follow(ToWorker::Cancel { leg: leg(0), choice: None }), None);
        parks(&mut parked, 78, 1 << 20).unwrap();
        let commit = ToWorker::Commit(Commit { leg: leg(78), firsts: vec![] });
        (0..10_000).for_each(|_| assert_eq!(parked.follow(commit.clone()), None));
        let taken = parked.take("giver:1");
        assert!(taken.iter().all(|(_, _, messages)| messages.len() <= 1 + FOLLOWERS_MAX));
        assert_eq!(parked.bytes, 0);
    }

    #[test]
    fn a_cancelled_offer_never_reaches_the_replica() {
        let mut parked = Parked::default();
        parked.park("giver:1", offer(1)).unwrap();
        assert_eq!(parked.follow(ToWorker::Cancel { leg: leg(1), choice: None }), None);
        assert!(parked.take("giver:1").is_empty());
    }
}
