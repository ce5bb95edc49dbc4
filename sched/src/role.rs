//! Roles of workers; knows nothing of how they do it.

/// Part that a worker plays. A role is a configuration of the one replica scheduler, not another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Computes prompts and first tokens, then gives the KV cache away.
    Prefill,
    /// Takes KV caches over and generates; can prefill when it is told to.
    Decode,
    /// Does both for whole requests, mixing chunks of prompts with decode steps.
    Aggregated,
    /// Does both for whole requests at the same time, each phase in a lane of its own on a share of the device.
    Colocated,
}

impl Role {
    /// Every role, for tables and tests.
    pub const ALL: [Role; 4] = [Role::Prefill, Role::Decode, Role::Aggregated, Role::Colocated];

    /// Metric label, wire name and configuration value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Role::Prefill => "prefill",
            Role::Decode => "decode",
            Role::Aggregated => "aggregated",
            Role::Colocated => "colocated",
        }
    }

    /// The role with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.label() == label)
    }
}
