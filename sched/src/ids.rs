//! Newtypes for everything that has a number, so that a block is never mistaken for a lease.

use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $raw);
    };
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty), $prefix:literal) => {
        newtype!($(#[$doc])* $name($raw));

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

/// Ids that are drawn at random: shown in enough hexadecimal digits to tell them apart, small ones in decimal.
macro_rules! drawn_id {
    ($(#[$doc:meta])* $name:ident($raw:ty), $prefix:literal, $shown:ty, $format:literal) => {
        newtype!($(#[$doc])* $name($raw));

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.0 <= <$raw>::from(u32::MAX) {
                    write!(f, concat!($prefix, "{}"), self.0)
                } else {
                    write!(f, concat!($prefix, $format), self.0 as $shown)
                }
            }
        }
    };
}

drawn_id!(
    /// Number of a client request, drawn by the router: a random base plus a counter, unique over all routers.
    RequestId(u64), "req", u64, "-{:016x}"
);
id!(
    /// Number of a try of a request. `Journey` counts tries up over all choices of the request, so (request, attempt)
    /// names one leg of work for ever.
    Attempt(u32), "try"
);
id!(
    /// One of the `n` answers of a request, as the client sees its `index`.
    Choice(u32), "choice"
);
id!(
    /// Number of a worker in the router's cluster table. Not stable over a restart of either side.
    WorkerId(u32), "worker"
);
id!(
    /// Number of a model among those that the router serves.
    ModelId(u32), "model"
);
drawn_id!(
    /// Incarnation of a process, random per start. A worker that restarts behind the same address has another one.
    InstanceId(u128), "inst", u32, "-{:08x}"
);
id!(
    /// A block of the KV pool of one worker.
    BlockId(u32), "b"
);
drawn_id!(
    /// A reader's right to the blocks of one leg, drawn by the giver.
    LeaseId(u64), "lease", u32, "-{:08x}"
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
    /// One pull of KV from a giver; counted up by the reader's scheduler.
    PullId(u64), "pull"
);
id!(
    /// A lane of the replica scheduler.
    LaneId(u8), "lane"
);
id!(
    /// Place of one running choice in the sampler, with its state and its last token. Dense, reused.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_numbers_are_short_and_small_ones_plain() {
        assert_eq!(InstanceId(7).to_string(), "inst7");
        assert_eq!(InstanceId(0xabcd_ef01_2345_6789_abcd_ef01_2345_6789).to_string(), "inst-23456789");
        assert_eq!(LeaseId(0xabcd_ef01_0000_0012).to_string(), "lease-00000012");
        assert_eq!(RequestId(0xabcd_ef01_0000_0012).to_string(), "req-abcdef0100000012");
        let leg = Leg { request: RequestId(3), attempt: Attempt(1) };
        assert_eq!(leg.to_string(), "req3/try1");
    }
}
