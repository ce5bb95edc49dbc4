//! Newtypes for everything that has a number, so that a block is never mistaken for a lease.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// One client request. The router draws it: a random base plus a counter, unique over all routers.
    RequestId(u64), "req"
);
id!(
    /// Which try of a request a message belongs to. `Journey` counts them up over all choices of the request,
    /// so (request, attempt) names one leg of work for ever.
    Attempt(u32), "try"
);
id!(
    /// One of the `n` answers of a request, as the client sees its `index`.
    Choice(u32), "choice"
);
id!(
    /// A worker as the router's cluster table numbers it. Not stable over a restart of either side.
    WorkerId(u32), "worker"
);
id!(
    /// A process incarnation, random per start. A worker that restarts behind the same address has another one.
    InstanceId(u128), "inst"
);
id!(
    /// A block of the KV pool of one worker.
    BlockId(u32), "b"
);
id!(
    /// A reader's right to the blocks of one leg, drawn by the giver.
    LeaseId(u64), "lease"
);
id!(
    /// An entry of the model's vocabulary.
    TokenId(u32), "t"
);
id!(
    /// One submitted step of one lane; counted up by the scheduler.
    StepId(u64), "step"
);
id!(
    /// A lane of the replica scheduler.
    LaneId(u8), "lane"
);
id!(
    /// Where the backend keeps the sampler state and the last token of one running sequence. Dense, reused.
    SlotId(u32), "slot"
);

/// One try at (some choices of) one request: the name that every message between processes carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg {
    /// The request.
    pub request: RequestId,
    /// The try.
    pub attempt: Attempt,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.request, self.attempt)
    }
}
