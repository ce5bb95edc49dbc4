//! Messages from router to worker.

use sched::message::{Offer, ToWorker, Work};
use sched::{Choice, LeaseId};

use super::ids::{blocks_from_wire, blocks_to_wire};
use super::limits::{ADDRESS_BYTES_MAX, BLOCKS_MAX, RENEW_MAX};
use super::{ConvertError, Field, Problem, Wire};
use crate::generated as wire;
use crate::generated::to_worker::Kind;

impl Wire for ToWorker {
    type Message = wire::ToWorker;

    fn to_wire(&self) -> wire::ToWorker {
        let kind = match self {
            ToWorker::Submit(request, work) => {
                Kind::Submit(wire::Submit { request: Some(request.to_wire()), work: work.to_wire() })
            }
            ToWorker::Offer(offer) => Kind::Offer(offer.to_wire()),
            ToWorker::Commit(commit) => Kind::Commit(commit.to_wire()),
            ToWorker::Cancel { leg, choice } => {
                Kind::Cancel(wire::Cancel { leg: Some(leg.to_wire()), choice: choice.map(|choice| choice.0) })
            }
            ToWorker::Renew(legs) => Kind::Renew(wire::Renew { legs: legs.iter().map(Wire::to_wire).collect() }),
        };
        wire::ToWorker { kind: Some(kind) }
    }

    fn from_wire(message: wire::ToWorker) -> Result<Self, ConvertError> {
        Ok(match Field("ToWorker", "kind").required(message.kind)? {
            Kind::Submit(submit) => {
                ToWorker::Submit(Field("Submit", "request").take(submit.request)?, Work::from_wire(submit.work)?)
            }
            Kind::Offer(offer) => ToWorker::Offer(Offer::from_wire(offer)?),
            Kind::Commit(commit) => ToWorker::Commit(Wire::from_wire(commit)?),
            Kind::Cancel(cancel) => {
                ToWorker::Cancel { leg: Field("Cancel", "leg").take(cancel.leg)?, choice: cancel.choice.map(Choice) }
            }
            Kind::Renew(renew) => ToWorker::Renew(Field("Renew", "legs").take_all(renew.legs, RENEW_MAX)?),
        })
    }
}

impl Wire for Work {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let work = match self {
            Work::Whole => wire::Work::Whole,
            Work::Give => wire::Work::Give,
        };
        work.into()
    }

    fn from_wire(message: i32) -> Result<Self, ConvertError> {
        let unknown = Field("Submit", "work").error(Problem::Unknown(message));
        match wire::Work::try_from(message).map_err(|_| unknown.clone())? {
            wire::Work::Unspecified => Err(unknown),
            wire::Work::Whole => Ok(Work::Whole),
            wire::Work::Give => Ok(Work::Give),
        }
    }
}

impl Wire for Offer {
    type Message = wire::Offer;

    fn to_wire(&self) -> wire::Offer {
        wire::Offer {
            request: Some(self.request.to_wire()),
            giver: Some(self.giver.to_wire()),
            giver_address: self.giver_address.to_string(),
            lease: self.lease.0,
            blocks: blocks_to_wire(&self.blocks),
        }
    }

    fn from_wire(message: wire::Offer) -> Result<Self, ConvertError> {
        let blocks = Field("Offer", "blocks");
        blocks.not_empty(message.blocks.len())?;
        blocks.at_most(message.blocks.len(), BLOCKS_MAX)?;
        Ok(Offer {
            request: Field("Offer", "request").take(message.request)?,
            giver: Field("Offer", "giver").take(message.giver)?,
            giver_address: Field("Offer", "giver_address").text(message.giver_address, ADDRESS_BYTES_MAX)?.into(),
            lease: LeaseId(message.lease),
            blocks: blocks_from_wire(message.blocks),
        })
    }
}
