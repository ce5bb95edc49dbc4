//! The bounds of every queue and wait of a transport.

use std::time::Duration;

/// Bounds of one transport. The defaults serve one worker with tens of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Batches started and not yet ended, over all peers.
    pub batches_max: usize,
    /// Ranges in one batch, before adjacent ones are joined.
    pub copies_max: usize,
    /// Bytes asked of one peer and not yet arrived.
    pub in_flight_bytes_max: u64,
    /// Bytes of one read; longer ranges are split so that aborts and other batches need not wait.
    pub read_bytes_max: u64,
    /// Bytes moved in a row for one peer before the others have a turn, where one thread serves all of them (tcp).
    pub turn_bytes: u64,
    /// Peers that we read from, up or connecting.
    pub peers_max: usize,
    /// Peers that read from us at once.
    pub readers_max: usize,
    /// Regions in one endpoint.
    pub regions_max: usize,
    /// From `connect` to the end of the probe.
    pub connect_deadline: Duration,
    /// How long a peer may bring no byte of what it was asked for; then it counts as lost. Idle connections are asked for
    /// a few bytes every [`Limits::idle_probe`], so that a path that has died is noticed then too.
    pub silence: Duration,
    /// How often an idle connection is tried, where a dead path would not show by itself (tcp).
    pub idle_probe: Duration,
    /// How long an abort waits for reads in flight before it closes the connection under them; longer where the measured
    /// rate says that they need longer. `None` closes at once.
    pub drain: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batches_max: 1024,
            copies_max: 1 << 20,
            in_flight_bytes_max: 16 << 20,
            read_bytes_max: 2 << 20,
            turn_bytes: 2 << 20,
            peers_max: 64,
            readers_max: 64,
            regions_max: 16,
            connect_deadline: Duration::from_secs(5),
            silence: Duration::from_secs(10),
            idle_probe: Duration::from_secs(3),
            drain: Some(Duration::from_millis(20)),
        }
    }
}
