//! The lobby: the few places for connections that have not greeted yet. When it is full, the longest wait ends, so that
//! a reader that greets at once gets in however many others stay silent. Pure; knows no socket.

use std::collections::BTreeMap;
use std::time::Duration;

const LOBBY_MAX: usize = 64;
/// Descriptors that the process may open, per place in the lobby.
const FILES_PER_PLACE: u64 = 8;
/// Longest time that a connection may wait.
pub(crate) const GREETING_DEADLINE: Duration = Duration::from_secs(2);

/// Waiting connections by number, each with the handle that ends it.
#[derive(Debug)]
pub(crate) struct Lobby<T> {
    waiting: BTreeMap<u64, T>,
    entered: u64,
    places: usize,
}

impl<T> Lobby<T> {
    /// Returns a lobby with places in proportion to the limit of open files.
    pub(crate) fn within_files() -> Self {
        Self::with(places(open_files_max()))
    }

    fn with(places: usize) -> Self {
        Self { waiting: BTreeMap::new(), entered: 0, places }
    }

    pub(crate) fn next(&self) -> u64 {
        self.entered
    }

    /// Admits a connection; returns the one that has to leave for it.
    pub(crate) fn enter(&mut self, connection: T) -> Option<T> {
        self.waiting.insert(self.entered, connection);
        self.entered += 1;
        if self.waiting.len() <= self.places {
            return None;
        }
        self.turn_out_oldest()
    }

    pub(crate) fn turn_out_oldest(&mut self) -> Option<T> {
        self.waiting.pop_first().map(|(_, oldest)| oldest)
    }

    /// Removes a connection that has greeted or ended; `None` if it was removed before.
    pub(crate) fn leave(&mut self, number: u64) -> Option<T> {
        self.waiting.remove(&number)
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.waiting).into_values()
    }
}

fn places(open_files_max: u64) -> usize {
    usize::try_from(open_files_max / FILES_PER_PLACE).map_or(LOBBY_MAX, |places| places.clamp(1, LOBBY_MAX))
}

fn open_files_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: fills a live structure; when that fails, it stays as it is.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_make_few_places() {
        assert_eq!([0, 7, 64, 256, 512, 1 << 20, u64::MAX].map(places), [1, 1, 8, 32, 64, 64, 64]);
        assert!((1..=LOBBY_MAX).contains(&places(open_files_max())));
    }

    #[test]
    fn the_longest_silence_goes_first() {
        let mut lobby = Lobby::with(LOBBY_MAX);
        for number in 0..LOBBY_MAX as u64 {
            assert_eq!(lobby.next(), number);
            assert_eq!(lobby.enter(number), None);
        }
        assert_eq!((lobby.leave(0), lobby.leave(0)), (Some(0), None));
        assert_eq!(lobby.enter(100), None, "who has greeted made room");
        assert_eq!(lobby.enter(101), Some(1));
        assert_eq!(lobby.enter(102), Some(2));
        assert_eq!(lobby.turn_out_oldest(), Some(3));
        assert_eq!(lobby.drain().count(), LOBBY_MAX - 1);
    }
}
