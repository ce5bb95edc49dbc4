//! Messages from worker to router.

use sched::message::FromWorker;
use sched::{Choice, LeaseId, Scores};

use super::ids::{blocks_from_wire, blocks_to_wire};
use super::limits::{BLOCKS_MAX, TOKENS_MAX};
use super::token::{ended_from_wire, ended_to_wire};
use super::{ConvertError, Field, Wire};
use crate::generated as wire;
use crate::generated::from_worker::Kind;

impl Wire for FromWorker {
    type Message = wire::FromWorker;

    fn to_wire(&self) -> wire::FromWorker {
        let kind = match self {
            FromWorker::Offered { leg, lease, blocks } => Kind::Offered(wire::Offered {
                leg: Some(leg.to_wire()),
                lease: lease.0,
                blocks: blocks_to_wire(blocks),
            }),
            FromWorker::Committed { commit, timing } => {
                Kind::Committed(wire::Committed { commit: Some(commit.to_wire()), timing: Some(timing.to_wire()) })
            }
            FromWorker::HandedOver { leg } => Kind::HandedOver(wire::HandedOver { leg: Some(leg.to_wire()) }),
            FromWorker::ReaderLost { leg } => Kind::ReaderLost(wire::ReaderLost { leg: Some(leg.to_wire()) }),
            FromWorker::Scored { leg, scores } => Kind::Scored(wire::Scored {
                leg: Some(leg.to_wire()),
                first: scores.first,
                scores: scores.scores.iter().map(Wire::to_wire).collect(),
            }),
            FromWorker::Token { leg, choice, index, token, ended, timing } => Kind::Token(wire::Token {
                leg: Some(leg.to_wire()),
                choice: choice.0,
                index: *index,
                token: Some(token.to_wire()),
                ended: ended_to_wire(*ended),
                timing: timing.as_ref().map(Wire::to_wire),
            }),
            FromWorker::Failed { leg, failure } => {
                Kind::Failed(wire::Failed { leg: Some(leg.to_wire()), failure: Some(failure.to_wire()) })
            }
        };
        wire::FromWorker { kind: Some(kind) }
    }

    fn from_wire(message: wire::FromWorker) -> Result<Self, ConvertError> {
        Ok(match Field("FromWorker", "kind").required(message.kind)? {
            Kind::Offered(offered) => offered_from_wire(offered)?,
            Kind::Committed(committed) => FromWorker::Committed {
                commit: Field("Committed", "commit").take(committed.commit)?,
                timing: Field("Committed", "timing").take(committed.timing)?,
            },
            Kind::HandedOver(over) => FromWorker::HandedOver { leg: Field("HandedOver", "leg").take(over.leg)? },
            Kind::ReaderLost(lost) => FromWorker::ReaderLost { leg: Field("ReaderLost", "leg").take(lost.leg)? },
            Kind::Scored(scored) => scored_from_wire(scored)?,
            Kind::Token(token) => token_from_wire(token)?,
            Kind::Failed(failed) => FromWorker::Failed {
                leg: Field("Failed", "leg").take(failed.leg)?,
                failure: Field("Failed", "failure").take(failed.failure)?,
            },
        })
    }
}

fn offered_from_wire(offered: wire::Offered) -> Result<FromWorker, ConvertError> {
    Field("Offered", "blocks").at_most(offered.blocks.len(), BLOCKS_MAX)?;
    Ok(FromWorker::Offered {
        leg: Field("Offered", "leg").take(offered.leg)?,
        lease: LeaseId(offered.lease),
        blocks: blocks_from_wire(offered.blocks),
    })
}

fn scored_from_wire(scored: wire::Scored) -> Result<FromWorker, ConvertError> {
    Ok(FromWorker::Scored {
        leg: Field("Scored", "leg").take(scored.leg)?,
        scores: Scores { first: scored.first, scores: Field("Scored", "scores").take_all(scored.scores, TOKENS_MAX)? },
    })
}

fn token_from_wire(token: wire::Token) -> Result<FromWorker, ConvertError> {
    Ok(FromWorker::Token {
        leg: Field("Token", "leg").take(token.leg)?,
        choice: Choice(token.choice),
        index: token.index,
        token: Field("Token", "token").take(token.token)?,
        ended: ended_from_wire(Field("Token", "ended"), token.ended)?,
        timing: token.timing.map(Wire::from_wire).transpose()?,
    })
}
