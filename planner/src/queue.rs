//! Future events in order of (time, sequence number); knows not what they mean.

use std::collections::BTreeMap;

use sched::Time;

/// Future events. Of events at the same time, the one pushed first comes first.
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    events: BTreeMap<(Time, u64), E>,
    pushed: u64,
}

impl<E> EventQueue<E> {
    pub(crate) fn new() -> EventQueue<E> {
        EventQueue { events: BTreeMap::new(), pushed: 0 }
    }

    pub(crate) fn push(&mut self, at: Time, event: E) {
        self.events.insert((at, self.pushed), event);
        self.pushed += 1;
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        self.events.first_key_value().map(|((time, _), _)| *time)
    }

    /// Takes the next event of this time, if there is one.
    pub(crate) fn pop_at(&mut self, now: Time) -> Option<(u64, E)> {
        let entry = self.events.first_entry().filter(|entry| entry.key().0 == now)?;
        let ((_, sequence), event) = entry.remove_entry();
        Some((sequence, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_happen_in_the_order_of_their_making() {
        let mut queue = EventQueue::new();
        for (at, name) in [(5, "b"), (3, "a"), (5, "c"), (9, "d")] {
            queue.push(Time(at), name);
        }
        let mut seen = Vec::new();
        while let Some(now) = queue.next_time() {
            while let Some((_, name)) = queue.pop_at(now) {
                seen.push((now.us(), name));
            }
        }
        assert_eq!(seen, [(3, "a"), (5, "b"), (5, "c"), (9, "d")]);
        assert_eq!(queue.pop_at(Time(9)), None);
    }
}
