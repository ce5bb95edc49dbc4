//! Offers whose giver is not up yet, each with everything that was said about its leg since; knows no connection.

use std::collections::BTreeMap;

use sched::message::{Offer, ToWorker};
use sched::{InstanceId, Leg};

struct Leaf {
    address: String,
    giver: InstanceId,
    messages: Vec<ToWorker>,
}

/// Offers that wait. Their number is bounded by the legs of the sessions they came through.
#[derive(Default)]
pub(super) struct Parked {
    legs: BTreeMap<Leg, Leaf>,
}

impl Parked {
    /// An offer waits for whoever answers at `address`.
    pub(super) fn park(&mut self, address: &str, offer: Offer) {
        let (leg, giver) = (offer.request.leg, offer.giver);
        let leaf = Leaf { address: address.to_owned(), giver, messages: vec![ToWorker::Offer(offer)] };
        self.legs.insert(leg, leaf);
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
            ToWorker::Cancel { choice: None, .. } => drop(self.legs.remove(&leg)),
            message => leaf.messages.push(message),
        }
        None
    }

    /// Takes out everything that waits for `address`: leg, giver, messages in order.
    pub(super) fn take(&mut self, address: &str) -> Vec<(Leg, InstanceId, Vec<ToWorker>)> {
        let legs = std::mem::take(&mut self.legs).into_iter();
        let (waiting, others): (Vec<_>, Vec<_>) = legs.partition(|(_, leaf)| leaf.address == address);
        self.legs = others.into_iter().collect();
        waiting.into_iter().map(|(leg, leaf)| (leg, leaf.giver, leaf.messages)).collect()
    }

    /// Whether anything waits for `address`.
    pub(super) fn waits_for(&self, address: &str) -> bool {
        self.legs.values().any(|leaf| leaf.address == address)
    }
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
        parked.park("giver:1", offer(1));
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

    #[test]
    fn a_cancelled_offer_never_reaches_the_replica() {
        let mut parked = Parked::default();
        parked.park("giver:1", offer(1));
        assert_eq!(parked.follow(ToWorker::Cancel { leg: leg(1), choice: None }), None);
        assert!(parked.take("giver:1").is_empty());
    }
}
