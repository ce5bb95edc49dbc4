//! Counts of what happened in histories; knows no network.

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) joined: u64,
    pub(super) expired_answers: u64,
    pub(super) repeated_releases: u64,
    pub(super) lost_pulls: u64,
    pub(super) crashes: u64,
    pub(super) retries: u64,
    pub(super) finished: u64,
    /// Messages of another reader about a lease.
    pub(super) strangers: u64,
    /// Pulls of prompts that were not complete, and of some of the layers.
    pub(super) early_pulls: u64,
    pub(super) layer_pulls: u64,
    pub(super) not_met: u64,
    /// Decodes of tokens that their worker's scheduler did not know yet.
    pub(super) continued: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: Seen) {
        self.joined += other.joined;
        self.expired_answers += other.expired_answers;
        self.repeated_releases += other.repeated_releases;
        self.lost_pulls += other.lost_pulls;
        self.crashes += other.crashes;
        self.retries += other.retries;
        self.finished += other.finished;
        self.strangers += other.strangers;
        self.early_pulls += other.early_pulls;
        self.layer_pulls += other.layer_pulls;
        self.not_met += other.not_met;
        self.continued += other.continued;
    }
}
