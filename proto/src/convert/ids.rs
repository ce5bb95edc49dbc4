//! Ids and spans: raw numbers on the wire.

use sched::{BlockId, InstanceId, LeaseId, Leg, RequestId, Span, TokenId};

use super::{ConvertError, Wire};
use crate::generated as wire;

impl Wire for InstanceId {
    type Message = wire::Instance;

    fn to_wire(&self) -> wire::Instance {
        wire::Instance { high: (self.0 >> 64) as u64, low: self.0 as u64 }
    }

    fn from_wire(message: wire::Instance) -> Result<Self, ConvertError> {
        Ok(InstanceId(u128::from(message.high) << 64 | u128::from(message.low)))
    }
}

impl Wire for Leg {
    type Message = wire::Leg;

    fn to_wire(&self) -> wire::Leg {
        wire::Leg { request: self.request.0, attempt: self.attempt.0 }
    }

    fn from_wire(message: wire::Leg) -> Result<Self, ConvertError> {
        Ok(Leg { request: RequestId(message.request), attempt: sched::Attempt(message.attempt) })
    }
}

pub(super) fn tokens_to_wire(tokens: &[TokenId]) -> Vec<u32> {
    tokens.iter().map(|token| token.0).collect()
}

pub(super) fn tokens_from_wire(tokens: Vec<u32>) -> Vec<TokenId> {
    tokens.into_iter().map(TokenId).collect()
}

pub(super) fn blocks_to_wire(blocks: &[BlockId]) -> Vec<u32> {
    blocks.iter().map(|block| block.0).collect()
}

pub(super) fn blocks_from_wire(blocks: Vec<u32>) -> Vec<BlockId> {
    blocks.into_iter().map(BlockId).collect()
}

pub(super) fn leases_to_wire(leases: &[LeaseId]) -> Vec<u64> {
    leases.iter().map(|lease| lease.0).collect()
}

pub(super) fn leases_from_wire(leases: Vec<u64>) -> Vec<LeaseId> {
    leases.into_iter().map(LeaseId).collect()
}

pub(super) fn span_to_wire(span: Option<Span>) -> Option<u64> {
    span.map(Span::us)
}
