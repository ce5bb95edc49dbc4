//! Welcome and status of a worker.

use sched::message::Load;
use sched::{Role, Span};

use super::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, PAIRS_MAX, TRANSPORTS_MAX, WORKER_NAME_BYTES_MAX};
use super::{ConvertError, Field, Problem, Wire};
use crate::generated as wire;
use crate::session::{Exactness, Pair, PairProblem, Phase, Welcome, WorkerStatus};

impl Wire for Role {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let role = match self {
            Role::Prefill => wire::Role::Prefill,
            Role::Decode => wire::Role::Decode,
            Role::Aggregated => wire::Role::Aggregated,
            Role::Colocated => wire::Role::Colocated,
        };
        role.into()
    }

    fn from_wire(message: i32) -> Result<Self, ConvertError> {
        let unknown = Field("Welcome", "role").error(Problem::Unknown(message));
        match wire::Role::try_from(message).map_err(|_| unknown.clone())? {
            wire::Role::Unspecified => Err(unknown),
            wire::Role::Prefill => Ok(Role::Prefill),
            wire::Role::Decode => Ok(Role::Decode),
            wire::Role::Aggregated => Ok(Role::Aggregated),
            wire::Role::Colocated => Ok(Role::Colocated),
        }
    }
}

impl Wire for Welcome {
    type Message = wire::Welcome;

    fn to_wire(&self) -> wire::Welcome {
        wire::Welcome {
            version: crate::VERSION,
            instance: Some(self.instance.to_wire()),
            role: self.role.to_wire(),
            model: self.model.clone(),
            compat: Some(self.compat.to_wire()),
            context_max: self.context_max,
            capacity_tokens: self.capacity_tokens,
            sequences_max: self.sequences_max,
            block_tokens: self.block_tokens,
            peer_address: self.peer_address.clone().unwrap_or_default(),
            backend: self.backend.clone(),
            exact: self.exactness == Exactness::Exact,
            transports: self.transports.clone(),
            name: self.name.clone(),
            lease_span_us: self.lease_span.us(),
            vocab_size: self.vocab_size,
        }
    }

    fn from_wire(message: wire::Welcome) -> Result<Self, ConvertError> {
        Ok(Welcome {
            instance: Field("Welcome", "instance").take(message.instance)?,
            role: Role::from_wire(message.role)?,
            model: Field("Welcome", "model").text(message.model, NAME_BYTES_MAX)?,
            compat: Field("Welcome", "compat").take(message.compat)?,
            vocab_size: message.vocab_size,
            context_max: message.context_max,
            capacity_tokens: message.capacity_tokens,
            sequences_max: message.sequences_max,
            block_tokens: message.block_tokens,
            peer_address: peer_address(message.peer_address)?,
            backend: Field("Welcome", "backend").text(message.backend, NAME_BYTES_MAX)?,
            exactness: if message.exact { Exactness::Exact } else { Exactness::Inexact },
            transports: transports(message.transports)?,
            name: Field("Welcome", "name").text(message.name, WORKER_NAME_BYTES_MAX)?,
            lease_span: Span(message.lease_span_us),
        })
    }
}

fn peer_address(address: String) -> Result<Option<String>, ConvertError> {
    let address = Field("Welcome", "peer_address").text(address, ADDRESS_BYTES_MAX)?;
    Ok(Some(address).filter(|address| !address.is_empty()))
}

fn transports(names: Vec<String>) -> Result<Vec<String>, ConvertError> {
    let field = Field("Welcome", "transports");
    field.at_most(names.len(), TRANSPORTS_MAX)?;
    names.into_iter().map(|name| field.text(name, NAME_BYTES_MAX)).collect()
}

impl Wire for WorkerStatus {
    type Message = wire::Status;

    fn to_wire(&self) -> wire::Status {
        wire::Status {
            load: Some(self.load.to_wire()),
            pairs: self.pairs.iter().map(Wire::to_wire).collect(),
            phase: self.phase.to_wire(),
            problems: self.problems.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: wire::Status) -> Result<Self, ConvertError> {
        Ok(WorkerStatus {
            load: Field("Status", "load").take(message.load)?,
            pairs: Field("Status", "pairs").take_all(message.pairs, PAIRS_MAX)?,
            phase: Phase::from_wire(message.phase)?,
            problems: Field("Status", "problems").take_all(message.problems, PAIRS_MAX)?,
        })
    }
}

impl Wire for Phase {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let phase = match self {
            Phase::Accepting => wire::Phase::Accepting,
            Phase::Draining => wire::Phase::Draining,
        };
        phase.into()
    }

    fn from_wire(message: i32) -> Result<Self, ConvertError> {
        let unknown = Field("Status", "phase").error(Problem::Unknown(message));
        match wire::Phase::try_from(message).map_err(|_| unknown.clone())? {
            wire::Phase::Unspecified => Err(unknown),
            wire::Phase::Accepting => Ok(Phase::Accepting),
            wire::Phase::Draining => Ok(Phase::Draining),
        }
    }
}

impl Wire for Load {
    type Message = wire::Load;

    fn to_wire(&self) -> wire::Load {
        wire::Load {
            running: self.running,
            waiting: self.waiting,
            waiting_tokens: self.waiting_tokens,
            held: self.held,
            blocks_free: self.blocks_free,
            blocks_cached: self.blocks_cached,
            blocks_in_use: self.blocks_in_use,
            blocks_quarantined: self.blocks_quarantined,
        }
    }

    fn from_wire(message: wire::Load) -> Result<Self, ConvertError> {
        Ok(Load {
            running: message.running,
            waiting: message.waiting,
            waiting_tokens: message.waiting_tokens,
            held: message.held,
            blocks_free: message.blocks_free,
            blocks_cached: message.blocks_cached,
            blocks_in_use: message.blocks_in_use,
            blocks_quarantined: message.blocks_quarantined,
            // These counts are for the worker's own metrics only.
            cached_tokens: 0,
            preemptions: 0,
            foreign_claims: 0,
        })
    }
}

impl Wire for PairProblem {
    type Message = wire::PairProblem;

    fn to_wire(&self) -> wire::PairProblem {
        wire::PairProblem { giver_address: self.giver_address.clone(), failure: Some(self.failure.to_wire()) }
    }

    fn from_wire(message: wire::PairProblem) -> Result<Self, ConvertError> {
        Ok(PairProblem {
            giver_address: Field("PairProblem", "giver_address").text(message.giver_address, ADDRESS_BYTES_MAX)?,
            failure: Field("PairProblem", "failure").take(message.failure)?,
        })
    }
}

impl Wire for Pair {
    type Message = wire::Pair;

    fn to_wire(&self) -> wire::Pair {
        wire::Pair {
            giver: Some(self.giver.to_wire()),
            transport: self.transport.clone(),
            bytes_per_second: self.bytes_per_second,
        }
    }

    fn from_wire(message: wire::Pair) -> Result<Self, ConvertError> {
        Ok(Pair {
            giver: Field("Pair", "giver").take(message.giver)?,
            transport: Field("Pair", "transport").text(message.transport, NAME_BYTES_MAX)?,
            bytes_per_second: message.bytes_per_second,
        })
    }
}
