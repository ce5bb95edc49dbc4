//! Limits the number of connections to the file descriptors that the system allows; knows no socket.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Most descriptors reserved for other uses than clients' connections: workers, files, pipes.
const RESERVE_MAX: u64 = 128;
/// Highest limit to ask for. Some systems allow a thousand million, for which libraries might allocate tables.
const FILES_MAX: u64 = 1 << 20;
/// Connections that are allowed even with too few descriptors.
const CONNECTIONS_MIN: usize = 4;

/// Raises the limit of open files of this process and its children to the maximum that the system allows. The usual
/// initial limit is for programs that use `select`, which servers do not.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => debug!(before = limit.current, now = wanted, "may open more files"),
        Err(error) => debug!(%error, "the limit of open files stays as it was"),
    }
}

/// Returns how many of `wanted` connections have descriptors, and logs a warning if these are fewer.
#[must_use]
pub fn connections_within_files(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let within = limit.map_or(wanted, |limit| connections(wanted, limit, open_now()));
    if within < wanted {
        warn!(
            connections_max = within,
            configured = wanted,
            open_files_max = limit,
            "fewer connections than configured: the limit of open files (ulimit -n) allows no more"
        );
    }
    within
}

fn connections(wanted: usize, limit: u64, open: u64) -> usize {
    let reserve = RESERVE_MAX.min(limit / 4);
    let left = limit.saturating_sub(open + reserve);
    usize::try_from(left).unwrap_or(usize::MAX).min(wanted).max(CONNECTIONS_MIN.min(wanted))
}

/// Counts the open descriptors; guesses where the system does not tell.
fn open_now() -> u64 {
    const GUESS: u64 = 32;
    std::fs::read_dir("/proc/self/fd").map_or(GUESS, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(connections(4_096, 1_048_576, 30), 4_096);
        assert_eq!(connections(4_096, 1_024, 30), 1_024 - 30 - 128);
        assert_eq!(connections(4_096, 64, 30), 64 - 30 - 16);
        assert_eq!(connections(4_096, 32, 30), CONNECTIONS_MIN);
        assert_eq!(connections(2, 32, 30), 2);
    }

    #[test]
    fn the_limit_is_raised_to_what_may_be_had() {
        raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
        assert!(limit.current.is_none_or(|current| current >= wanted), "{limit:?}");
    }
}
