//! What a deployment lacks while a leg finds no route; knows no leg.

use std::fmt;

use crate::cluster::Cluster;
use crate::{Failure, FailureKind, ModelId, Role};

/// First thing to bring up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// No worker is up.
    Worker,
    /// No prefill worker is up.
    Prefill,
    /// No decode worker is up.
    Decode,
    /// Both roles are up, but no two workers can exchange KV caches.
    Compatible,
    /// Two that could exchange KV caches are not connected.
    Connection,
    /// Two that could exchange KV caches are not connected, and a reader has said why.
    Refused(Failure),
    /// Everything is up, but not for a sequence of this length.
    Room,
    /// No worker can go on with what workers of another kind have begun.
    Kind,
}

impl Lack {
    /// Returns what `cluster` lacks for a model.
    #[must_use]
    pub fn of(cluster: &Cluster, model: ModelId) -> Lack {
        let is_up = |role| cluster.of_role(model, role).next().is_some();
        let compatible = |giver: &crate::cluster::Worker| {
            cluster.of_role(model, Role::Decode).any(|reader| reader.info.compat == giver.info.compat)
        };
        match (is_up(Role::Prefill), is_up(Role::Decode)) {
            _ if cluster.sequence_tokens_max(model).is_some() => Lack::Room,
            (false, false) => Lack::Worker,
            (true, false) => Lack::Decode,
            (false, true) => Lack::Prefill,
            (true, true) if cluster.of_role(model, Role::Prefill).any(compatible) => {
                // An incompatibility comes first: waiting does not heal it, so an operator has to know.
                let hopeless = cluster.problems().find(|problem| problem.kind == FailureKind::Incompatible);
                hopeless.or_else(|| cluster.problems().next()).cloned().map_or(Lack::Connection, Lack::Refused)
            }
            (true, true) => Lack::Compatible,
        }
    }

    /// Kind of failure of a request that has waited in vain.
    #[must_use]
    pub fn failure_kind(&self) -> FailureKind {
        match self {
            Lack::Refused(Failure { kind: FailureKind::Incompatible, .. }) => FailureKind::Incompatible,
            Lack::Refused(_) => FailureKind::Unavailable,
            Lack::Worker | Lack::Prefill | Lack::Decode | Lack::Connection | Lack::Room | Lack::Kind => {
                FailureKind::Unavailable
            }
            Lack::Compatible => FailureKind::Incompatible,
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lack::Refused(why) => return write!(f, "a connection between a decode and a prefill worker; {why}"),
            Lack::Worker => "a worker",
            Lack::Prefill => "a prefill worker",
            Lack::Decode => "a decode worker",
            Lack::Compatible => "a decode worker whose model, dtypes and numerics are those of a prefill worker",
            Lack::Connection => "a connection between a decode and a prefill worker",
            Lack::Room => "a worker with room for so long a sequence",
            Lack::Kind => "a worker with the weights, formats and kernels of the one that began",
        })
    }
}
