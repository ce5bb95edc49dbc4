//! Readers that listen to a giver, and the words that wait for them; decides nothing about leases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sched::InstanceId;
use sched::message::ToReader;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::signed::MEETINGS_OF_READER_MAX;

/// Limit on words that wait for one stream; a reader that misses a word asks again.
const WORDS_MAX: usize = 1024;
/// Waiting words behind which no word that may name many leases is added.
const LONG_WORDS_MAX: usize = 16;
/// Limit on streams of one reader: one for each address of the giver, and ended ones that were not noticed yet.
const STREAMS_OF_READER_MAX: usize = MEETINGS_OF_READER_MAX;
const STREAMS_MAX: usize = 1024;

pub(super) type Words = Receiver<ToReader>;

/// All streams to readers; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Listeners {
    streams: Arc<Mutex<Streams>>,
}

#[derive(Debug, Default)]
struct Streams {
    opened: u64,
    /// Streams by reader, the oldest of each first.
    open: BTreeMap<(InstanceId, u64), Sender<ToReader>>,
}

impl Listeners {
    /// Sends a word to a reader over each of its streams; never waits. Without a stream, or over a full one, the word
    /// is dropped, and the reader asks again. A reader with several streams gets a word several times.
    pub fn say(&self, reader: InstanceId, word: &ToReader) {
        let mut streams = self.streams();
        let own: Vec<_> = streams.open.range((reader, 0)..=(reader, u64::MAX)).map(|(name, _)| *name).collect();
        let mut heard = false;
        for name in own {
            match streams.open.get(&name).map(|stream| put(stream, word)) {
                Some(Ok(())) => heard = true,
                Some(Err(TrySendError::Closed(_))) => drop(streams.open.remove(&name)),
                Some(Err(TrySendError::Full(_))) | None => {}
            }
        }
        if !heard {
            tracing::debug!(%reader, "a word for a reader that does not listen");
        }
    }

    /// Opens a stream for a reader. If there are too many, its own oldest or the oldest of all ends.
    pub(super) fn listen(&self, reader: InstanceId) -> Words {
        let (stream, words) = channel(WORDS_MAX);
        let mut streams = self.streams();
        streams.open.retain(|_, stream| !stream.is_closed());
        streams.opened += 1;
        let name = (reader, streams.opened);
        streams.open.insert(name, stream);
        let mut own = streams.open.range((reader, 0)..=name).map(|(name, _)| *name);
        let oldest = own.next();
        if own.count() >= STREAMS_OF_READER_MAX
            && let Some(oldest) = oldest
        {
            streams.open.remove(&oldest);
        }
        if streams.open.len() > STREAMS_MAX
            && let Some(oldest) = streams.open.keys().copied().min_by_key(|(_, opened)| *opened)
        {
            streams.open.remove(&oldest);
        }
        words
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(stream: &Sender<ToReader>, word: &ToReader) -> Result<(), TrySendError<ToReader>> {
    let waiting = stream.max_capacity() - stream.capacity();
    match word {
        ToReader::Gone(_) if waiting >= LONG_WORDS_MAX && !stream.is_closed() => Err(TrySendError::Full(word.clone())),
        ToReader::Gone(_) | ToReader::Filled { .. } | ToReader::Released { .. } => stream.try_send(word.clone()),
    }
}

#[cfg(test)]
mod tests {
    use sched::LeaseId;
    use sched::message::ReleaseAnswer;

    use super::*;

    const READER: InstanceId = InstanceId(1);
    const OTHER: InstanceId = InstanceId(2);

    fn gone(lease: u64) -> ToReader {
        ToReader::Gone(vec![LeaseId(lease)])
    }

    fn released(lease: u64) -> ToReader {
        ToReader::Released { lease: LeaseId(lease), answer: ReleaseAnswer::Ok }
    }

    fn heard(words: &mut Words) -> Vec<ToReader> {
        std::iter::from_fn(|| words.try_recv().ok()).collect()
    }

    #[test]
    fn a_word_is_for_its_reader_over_every_stream_that_it_has() {
        let listeners = Listeners::default();
        let (mut one, mut two, mut other) =
            (listeners.listen(READER), listeners.listen(READER), listeners.listen(OTHER));
        listeners.say(READER, &gone(7));
        listeners.say(InstanceId(3), &gone(8));
        assert_eq!((heard(&mut one), heard(&mut two), heard(&mut other)), (vec![gone(7)], vec![gone(7)], vec![]));
        drop(one);
        listeners.say(READER, &gone(9));
        assert_eq!(heard(&mut two), [gone(9)]);
        assert_eq!(listeners.streams().open.len(), 2, "a stream that has ended is forgotten");
    }

    #[test]
    fn what_waits_and_who_listens_is_bounded() {
        let listeners = Listeners::default();
        let mut deaf = listeners.listen(READER);
        (0..5_000).for_each(|lease| listeners.say(READER, &gone(lease)));
        assert_eq!(heard(&mut deaf).len(), LONG_WORDS_MAX);
        (0..5_000).for_each(|lease| listeners.say(READER, &released(lease)));
        assert_eq!(heard(&mut deaf).len(), WORDS_MAX);
        let streams: Vec<_> = (0..200).map(|_| listeners.listen(READER)).collect();
        assert_eq!(listeners.streams().open.len(), STREAMS_OF_READER_MAX);
        listeners.say(READER, &gone(0));
        assert_eq!(streams.iter().filter(|words| !words.is_empty()).count(), STREAMS_OF_READER_MAX);
        assert!(!streams[199].is_empty(), "the newest stays");
        let crowd: Vec<_> = (10..6_000).map(|reader| listeners.listen(InstanceId(reader))).collect();
        assert_eq!((listeners.streams().open.len(), crowd.len()), (STREAMS_MAX, 5_990));
    }
}
