//! Where connections wait that have not greeted yet: few, and when there is no room the one that has waited longest goes,
//! so that whoever greets at once gets in however many others keep silent. Pure; knows no socket.

use std::collections::BTreeMap;
use std::time::Duration;

/// Connections that may wait.
pub(crate) const LOBBY_MAX: usize = 64;
/// How long one may.
pub(crate) const GREETING_DEADLINE: Duration = Duration::from_secs(2);

/// The connections that wait, each with what ends it.
#[derive(Debug)]
pub(crate) struct Lobby<T> {
    waiting: BTreeMap<u64, T>,
    entered: u64,
}

impl<T> Lobby<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), entered: 0 }
    }

    /// The number of the next one to enter.
    pub(crate) fn next(&self) -> u64 {
        self.entered
    }

    /// Lets one in; whoever has to go for it is given back.
    pub(crate) fn enter(&mut self, connection: T) -> Option<T> {
        self.waiting.insert(self.entered, connection);
        self.entered += 1;
        if self.waiting.len() <= LOBBY_MAX {
            return None;
        }
        self.waiting.pop_first().map(|(_, oldest)| oldest)
    }

    /// It has greeted or is gone.
    pub(crate) fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// All that wait.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.waiting).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_goes_first() {
        let mut lobby = Lobby::new();
        for number in 0..LOBBY_MAX as u64 {
            assert_eq!(lobby.next(), number);
            assert_eq!(lobby.enter(number), None);
        }
        lobby.leave(0);
        assert_eq!(lobby.enter(100), None, "who has greeted made room");
        assert_eq!(lobby.enter(101), Some(1));
        assert_eq!(lobby.enter(102), Some(2));
        assert_eq!(lobby.drain().count(), LOBBY_MAX);
    }
}
