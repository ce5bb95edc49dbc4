//! Messages between reader and giver.

use sched::handoff::Watermark;
use sched::message::{ReleaseAnswer, ToGiver, ToReader};
use sched::{LeaseId, Span};

use super::ids::{leases_from_wire, leases_to_wire};
use super::limits::{ENDPOINT_BYTES_MAX, LEASES_MAX, NAME_BYTES_MAX, TRANSPORTS_MAX, WORKER_NAME_BYTES_MAX};
use super::{ConvertError, Field, Problem, Wire};
use crate::generated as wire;
use crate::generated::{to_giver, to_reader};
use crate::peer::{Endpoint, PeerWelcome};

impl Wire for PeerWelcome {
    type Message = wire::PeerWelcome;

    fn to_wire(&self) -> wire::PeerWelcome {
        wire::PeerWelcome {
            version: crate::VERSION,
            compat: Some(self.compat.to_wire()),
            instance: Some(self.instance.to_wire()),
            layout: Some(self.layout.to_wire()),
            blocks: self.blocks,
            endpoints: self.endpoints.iter().map(Wire::to_wire).collect(),
            name: self.name.clone(),
            lease_span_us: self.lease_span.us(),
            proof: Vec::new(),
        }
    }

    fn from_wire(message: wire::PeerWelcome) -> Result<Self, ConvertError> {
        Ok(PeerWelcome {
            compat: Field("PeerWelcome", "compat").take(message.compat)?,
            instance: Field("PeerWelcome", "instance").take(message.instance)?,
            layout: Field("PeerWelcome", "layout").take(message.layout)?,
            blocks: message.blocks,
            endpoints: Field("PeerWelcome", "endpoints").take_all(message.endpoints, TRANSPORTS_MAX)?,
            name: Field("PeerWelcome", "name").text(message.name, WORKER_NAME_BYTES_MAX)?,
            lease_span: Span(message.lease_span_us),
        })
    }
}

impl Wire for Endpoint {
    type Message = wire::Endpoint;

    fn to_wire(&self) -> wire::Endpoint {
        wire::Endpoint { transport: self.transport.clone(), address: self.address.clone() }
    }

    fn from_wire(message: wire::Endpoint) -> Result<Self, ConvertError> {
        Field("Endpoint", "address").at_most(message.address.len(), ENDPOINT_BYTES_MAX)?;
        let transport = Field("Endpoint", "transport").text(message.transport, NAME_BYTES_MAX)?;
        Ok(Endpoint { transport, address: message.address })
    }
}

impl Wire for ToGiver {
    type Message = wire::ToGiver;

    fn to_wire(&self) -> wire::ToGiver {
        let word = match self {
            ToGiver::Renew(leases) => to_giver::Word::Renew(some(leases)),
            ToGiver::Follow(lease) => to_giver::Word::Follow(lease.0),
            ToGiver::Release(lease) => to_giver::Word::Release(lease.0),
            ToGiver::Abort(lease) => to_giver::Word::Abort(lease.0),
        };
        wire::ToGiver { word: Some(word) }
    }

    fn from_wire(message: wire::ToGiver) -> Result<Self, ConvertError> {
        Ok(match Field("ToGiver", "word").required(message.word)? {
            to_giver::Word::Renew(leases) => ToGiver::Renew(bounded(leases)?),
            to_giver::Word::Follow(lease) => ToGiver::Follow(LeaseId(lease)),
            to_giver::Word::Release(lease) => ToGiver::Release(LeaseId(lease)),
            to_giver::Word::Abort(lease) => ToGiver::Abort(LeaseId(lease)),
        })
    }
}

impl Wire for ToReader {
    type Message = wire::ToReader;

    fn to_wire(&self) -> wire::ToReader {
        let word = match self {
            ToReader::Gone(leases) => to_reader::Word::Gone(some(leases)),
            ToReader::Filled { lease, stored } => {
                let Watermark { tokens, chunk_end, layers } = *stored;
                to_reader::Word::Filled(wire::Filled { lease: lease.0, tokens, chunk_end, layers })
            }
            ToReader::Released { lease, answer } => {
                to_reader::Word::Released(wire::Released { lease: lease.0, answer: answer.to_wire() })
            }
        };
        wire::ToReader { word: Some(word) }
    }

    fn from_wire(message: wire::ToReader) -> Result<Self, ConvertError> {
        Ok(match Field("ToReader", "word").required(message.word)? {
            to_reader::Word::Gone(leases) => ToReader::Gone(bounded(leases)?),
            to_reader::Word::Filled(wire::Filled { lease, tokens, chunk_end, layers }) => {
                ToReader::Filled { lease: LeaseId(lease), stored: Watermark { tokens, chunk_end, layers } }
            }
            to_reader::Word::Released(wire::Released { lease, answer }) => {
                ToReader::Released { lease: LeaseId(lease), answer: ReleaseAnswer::from_wire(answer)? }
            }
        })
    }
}

fn some(leases: &[LeaseId]) -> wire::Leases {
    wire::Leases { leases: leases_to_wire(leases) }
}

fn bounded(message: wire::Leases) -> Result<Vec<LeaseId>, ConvertError> {
    Field("Leases", "leases").at_most(message.leases.len(), LEASES_MAX)?;
    Ok(leases_from_wire(message.leases))
}

impl Wire for ReleaseAnswer {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let answer = match self {
            ReleaseAnswer::Ok => wire::ReleaseAnswer::Ok,
            ReleaseAnswer::Expired => wire::ReleaseAnswer::Expired,
        };
        answer.into()
    }

    fn from_wire(message: i32) -> Result<Self, ConvertError> {
        let unknown = Field("Released", "answer").error(Problem::Unknown(message));
        match wire::ReleaseAnswer::try_from(message).map_err(|_| unknown.clone())? {
            wire::ReleaseAnswer::Unspecified => Err(unknown),
            wire::ReleaseAnswer::Ok => Ok(ReleaseAnswer::Ok),
            wire::ReleaseAnswer::Expired => Ok(ReleaseAnswer::Expired),
        }
    }
}
