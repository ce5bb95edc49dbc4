//! Limit on strangers' connections by the open-files limit, and errors for want of descriptors. Knows no socket.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

const STRANGERS_MAX: usize = 64;
/// Descriptors that the process may open, per stranger.
const FILES_PER_STRANGER: u64 = 8;

pub(super) fn strangers_max() -> usize {
    strangers_within(getrlimit(Resource::Nofile).current)
}

fn strangers_within(open_files_max: Option<u64>) -> usize {
    let places = open_files_max.and_then(|files| usize::try_from(files / FILES_PER_STRANGER).ok());
    places.map_or(STRANGERS_MAX, |places| places.clamp(1, STRANGERS_MAX))
}

/// Whether an accept failed because this process or the system is out of descriptors or memory.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_make_few_places() {
        assert_eq!([7, 64, 256, 512, 1 << 20].map(|files| strangers_within(Some(files))), [1, 8, 32, 64, 64]);
        assert_eq!(strangers_within(None), STRANGERS_MAX);
    }

    #[test]
    fn only_want_of_room_turns_anybody_out() {
        assert!(is_missing(&Errno::MFILE.into()) && is_missing(&Errno::NFILE.into()));
        assert!(!is_missing(&Errno::CONNABORTED.into()));
    }
}
