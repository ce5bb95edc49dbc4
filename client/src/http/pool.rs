//! Pool of idle connections to one server; opens none.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;

/// Most idle connections that are kept.
const IDLE_MAX: usize = 1024;
/// Longest time that a connection may be idle. Common servers close theirs after five seconds, and a request that meets
/// the close on its way would be lost.
const IDLE_TIME_MAX: Duration = Duration::from_secs(3);

/// Sending end of one connection.
pub(super) type Connection = SendRequest<Full<Bytes>>;

/// Connections without a request and since when, the one used last on top.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Pool {
    /// Takes a connection that the server has not closed, as far as is known.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| !connection.is_closed() && since.elapsed() < IDLE_TIME_MAX);
        idle.pop().map(|(connection, _)| connection)
    }

    pub(super) fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !connection.is_closed() && idle.len() < IDLE_MAX {
            idle.push((connection, Instant::now()));
        }
    }
}
