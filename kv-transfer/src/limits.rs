//! Bounds of every queue and wait of a transport.

use std::time::Duration;

/// Bounds of one transport. The defaults suit a worker with tens of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Batches open at once, over all peers.
    pub batches_max: usize,
    /// Ranges in one batch, before adjacent ones are joined.
    pub copies_max: usize,
    /// Bytes requested from one peer that have not arrived.
    pub in_flight_bytes_max: u64,
    /// Bytes of one read; longer ranges are split so that aborts and other batches do not wait for them.
    pub read_bytes_max: u64,
    /// Bytes moved for one peer before the others have a turn, where one thread serves all of them (tcp).
    pub turn_bytes: u64,
    /// Peers that this worker reads from, up or connecting.
    pub peers_max: usize,
    /// Peers that read from this worker at once.
    pub readers_max: usize,
    /// Regions in one endpoint.
    pub regions_max: usize,
    /// Time from `connect` to the end of the probe.
    pub connect_deadline: Duration,
    /// Longest time in which a peer may send none of the bytes it was asked for; then it counts as lost. Idle
    /// connections are asked for a byte every [`Limits::idle_probe`] (tcp), so that a dead path is noticed there too.
    pub silence: Duration,
    /// Interval of tests of an idle connection, where a dead path would not show by itself (tcp).
    pub idle_probe: Duration,
    /// Shortest wait of an abort for reads in flight before it closes the connection under them (ucx); longer where the
    /// measured rate says that the reads need longer. `None` closes at once.
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
