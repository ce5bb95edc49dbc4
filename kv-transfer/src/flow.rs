//! The batches of one peer in order of arrival, cut into reads: says the next read, which batches have ended and which
//! are late. Pure: its caller passes the time and how reads end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::batch::Job;
use crate::region::host_memory;
use crate::{RangeCopy, Ticket, TransferError, TransferEvent, TransportKind};

/// Retries of reads that came back without their bytes through no fault of their batch, until a read of it lands.
#[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only one-sided transports ask for this"))]
const RETRIES_PER_BATCH_MAX: u32 = 1;

#[derive(Debug, Default)]
pub(crate) struct Flow {
    batches: VecDeque<Open>,
    /// Start of the oldest batch's time for reading: its reads have begun and no other batch is ahead of it.
    reading_since: Option<Instant>,
}

/// One read: part of one range of one batch.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) ticket: Ticket,
    pub(crate) job: Arc<Job>,
    pub(crate) range: RangeCopy,
}

impl Read {
    /// Destination of the bytes, for transports that serve memory of the host.
    pub(crate) fn host_destination(&self, kind: TransportKind) -> Result<*mut u8, TransferError> {
        // The offset was checked against the region when the job was made.
        Ok(host_memory(kind, &self.job.local)?.as_ptr().wrapping_add(self.range.local_offset as usize))
    }
}

/// Reason for which a batch ends before its last byte.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    Aborted,
    Failed(TransferError),
}

#[derive(Debug)]
struct Open {
    ticket: Ticket,
    job: Arc<Job>,
    /// Index of the next range; `offset` is how much of it was handed out.
    range: usize,
    offset: u64,
    again: Vec<RangeCopy>,
    outstanding: u32,
    begun: bool,
    #[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only one-sided transports ask for this"))]
    retries: u32,
    ending: Option<Ending>,
}

impl Flow {
    pub(crate) fn push(&mut self, ticket: Ticket, job: Arc<Job>) {
        debug_assert!(
            self.batches.back().is_none_or(|last| last.ticket < ticket),
            "{ticket:?} comes after a later one"
        );
        let again = Vec::new();
        self.batches.push_back(Open {
            ticket,
            job,
            range: 0,
            offset: 0,
            again,
            outstanding: 0,
            begun: false,
            retries: 0,
            ending: None,
        });
    }

    /// Returns the next read, of at most `bytes_max` bytes, from the oldest batch that has more to read.
    pub(crate) fn next_read(&mut self, bytes_max: u64, now: Instant) -> Option<Read> {
        let read = self.batches.iter_mut().find_map(|open| open.next_read(bytes_max))?;
        if self.batches.front().is_some_and(|oldest| oldest.begun) {
            self.reading_since.get_or_insert(now);
        }
        Some(read)
    }

    pub(crate) fn landed(&mut self, ticket: Ticket, now: Instant) -> Option<TransferEvent> {
        let open = self.open(ticket)?;
        open.outstanding -= 1;
        // A batch that makes progress gets its retry back.
        open.retries = 0;
        self.settle(ticket, now)
    }

    /// Notes that a read came back without its bytes, because the connection was closed to end a batch.
    #[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only one-sided transports ask for this"))]
    pub(crate) fn came_back(&mut self, read: &Read, error: &TransferError, now: Instant) -> Option<TransferEvent> {
        let open = self.open(read.ticket)?;
        open.outstanding -= 1;
        open.again.push(read.range);
        if open.retries >= RETRIES_PER_BATCH_MAX && open.ending.is_none() {
            open.ending = Some(Ending::Failed(error.clone()));
        }
        self.settle(read.ticket, now)
    }

    pub(crate) fn failed(&mut self, ticket: Ticket, error: TransferError, now: Instant) -> Option<TransferEvent> {
        let open = self.open(ticket)?;
        open.outstanding -= 1;
        open.ending.get_or_insert(Ending::Failed(error));
        self.settle(ticket, now)
    }

    /// Stops the reads of a batch. The event comes now if no read is outstanding, otherwise with the last one.
    pub(crate) fn end(&mut self, ticket: Ticket, ending: Ending, now: Instant) -> Option<TransferEvent> {
        let open = self.open(ticket)?;
        open.ending.get_or_insert(ending);
        self.settle(ticket, now)
    }

    /// Ends a batch at once; the caller has made sure that its outstanding reads cannot land.
    pub(crate) fn forget(&mut self, ticket: Ticket, ending: Ending, now: Instant) -> Option<TransferEvent> {
        let open = self.open(ticket)?;
        open.outstanding = 0;
        open.ending.get_or_insert(ending);
        self.settle(ticket, now)
    }

    /// Counts one retry for each batch that lost reads when the connection was closed.
    #[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only one-sided transports ask for this"))]
    pub(crate) fn connection_renewed(&mut self) {
        for open in &mut self.batches {
            if !open.again.is_empty() {
                open.retries += 1;
            }
        }
    }

    pub(crate) fn late(&self, now: Instant) -> Vec<(Ticket, TransferError)> {
        let passed = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        let running = self.batches.iter().enumerate().filter(|(_, open)| open.ending.is_none());
        let late =
            running.filter_map(|(index, open)| match (passed(open.job.deadline()), passed(self.slow_at(index))) {
                (true, _) => Some((open.ticket, open.job.late())),
                (false, true) => Some((open.ticket, open.job.slow())),
                (false, false) => None,
            });
        late.collect()
    }

    /// Returns the earliest deadline of a batch that is not ending yet.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let running = self.batches.iter().enumerate().filter(|(_, open)| open.ending.is_none());
        running.flat_map(|(index, open)| [open.job.deadline(), self.slow_at(index)]).flatten().min()
    }

    /// End of the time for reading of the batch at `index`; only the oldest has one, the others wait for it.
    fn slow_at(&self, index: usize) -> Option<Instant> {
        let oldest = self.batches.front().filter(|_| index == 0)?;
        self.reading_since?.checked_add(oldest.job.reading)
    }

    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.batches.iter().map(|open| open.ticket).collect()
    }

    /// Returns the oldest batch that is ending and waits for its outstanding reads.
    #[cfg_attr(not(feature = "ucx"), allow(dead_code, reason = "only one-sided transports ask for this"))]
    pub(crate) fn draining(&self) -> Option<Ticket> {
        self.batches.iter().find(|open| open.ending.is_some()).map(|open| open.ticket)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    fn open(&mut self, ticket: Ticket) -> Option<&mut Open> {
        let index = self.index(ticket)?;
        self.batches.get_mut(index)
    }

    /// Binary search: tickets are counted up, so those of a peer are in order.
    fn index(&self, ticket: Ticket) -> Option<usize> {
        self.batches.binary_search_by_key(&ticket, |open| open.ticket).ok()
    }

    /// Removes a batch that is complete or ending and has no outstanding read.
    fn settle(&mut self, ticket: Ticket, now: Instant) -> Option<TransferEvent> {
        let index = self.index(ticket)?;
        let open = &self.batches[index];
        if open.outstanding > 0 || (open.ending.is_none() && open.has_more()) {
            return None;
        }
        let open = self.batches.remove(index)?;
        if index == 0 {
            self.reading_since = self.batches.front().filter(|next| next.begun).map(|_| now);
        }
        let elapsed_us = u64::try_from((now - open.job.started).as_micros()).unwrap_or(u64::MAX);
        Some(match open.ending {
            None => TransferEvent::Done { ticket, bytes: open.job.bytes, elapsed_us },
            Some(Ending::Aborted) => TransferEvent::Aborted { ticket },
            Some(Ending::Failed(error)) => TransferEvent::Failed { ticket, error },
        })
    }
}

impl Open {
    fn has_more(&self) -> bool {
        self.range < self.job.copies.len() || !self.again.is_empty()
    }

    fn next_read(&mut self, bytes_max: u64) -> Option<Read> {
        if self.ending.is_some() {
            return None;
        }
        let range = self.again.pop().or_else(|| self.next_range(bytes_max))?;
        self.outstanding += 1;
        self.begun = true;
        Some(Read { ticket: self.ticket, job: Arc::clone(&self.job), range })
    }

    fn next_range(&mut self, bytes_max: u64) -> Option<RangeCopy> {
        let whole = self.job.copies.get(self.range)?;
        let bytes = (whole.bytes - self.offset).min(bytes_max);
        let range = RangeCopy {
            remote_offset: whole.remote_offset + self.offset,
            local_offset: whole.local_offset + self.offset,
            bytes,
        };
        self.offset += bytes;
        if self.offset == whole.bytes {
            self.range += 1;
            self.offset = 0;
        }
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kernels::memory::{Backing, HostMemory, Region};
    use sched::LeaseId;

    use super::*;
    use crate::{Batch, Limits, RegionId};

    fn job(lengths: &[u64], deadline_ms: u64) -> Arc<Job> {
        let local = Region::from(Arc::new(HostMemory::new(4096, Backing::Anonymous).unwrap()));
        let copies = lengths.iter().enumerate();
        let copies = copies.map(|(i, bytes)| RangeCopy {
            remote_offset: 100 * i as u64,
            local_offset: 100 * i as u64,
            bytes: *bytes,
        });
        let batch = Batch {
            lease: LeaseId(0),
            remote: RegionId(0),
            local: RegionId(0),
            copies: copies.collect(),
            deadline: Duration::from_millis(deadline_ms),
            reading: Duration::from_millis(deadline_ms / 2),
        };
        Arc::new(Job::check(batch, 4096, &local, &Limits::default()).unwrap())
    }

    fn ranges(flow: &mut Flow, bytes_max: u64) -> Vec<(u64, u64, u64)> {
        let reads = std::iter::from_fn(|| flow.next_read(bytes_max, Instant::now()));
        reads.map(|read| (read.ticket.0, read.range.remote_offset, read.range.bytes)).collect()
    }

    #[test]
    fn batches_are_cut_into_reads_in_order_and_end_with_their_last_read() {
        let mut flow = Flow::default();
        flow.push(Ticket(0), job(&[10, 25], 1000));
        flow.push(Ticket(1), job(&[5], 1000));
        assert_eq!(ranges(&mut flow, 10), [(0, 0, 10), (0, 100, 10), (0, 110, 10), (0, 120, 5), (1, 0, 5)]);
        let now = Instant::now();
        assert!(matches!(flow.landed(Ticket(1), now), Some(TransferEvent::Done { bytes: 5, .. })));
        for _ in 0..3 {
            assert_eq!(flow.landed(Ticket(0), now), None);
        }
        assert!(matches!(flow.landed(Ticket(0), now), Some(TransferEvent::Done { bytes: 35, .. })));
        assert!(flow.is_empty());
    }

    #[test]
    fn an_ending_batch_waits_for_its_outstanding_reads() {
        let mut flow = Flow::default();
        let now = Instant::now();
        flow.push(Ticket(0), job(&[10, 10], 1000));
        assert!(flow.next_read(10, now).is_some());
        assert_eq!(flow.end(Ticket(0), Ending::Aborted, now), None);
        assert!(flow.draining().is_some() && flow.next_read(10, now).is_none());
        assert_eq!(flow.landed(Ticket(0), now), Some(TransferEvent::Aborted { ticket: Ticket(0) }));
        flow.push(Ticket(1), job(&[10], 1000));
        assert_eq!(flow.end(Ticket(1), Ending::Aborted, now), Some(TransferEvent::Aborted { ticket: Ticket(1) }));
    }

    #[test]
    fn the_first_reason_to_end_wins() {
        let mut flow = Flow::default();
        let now = Instant::now();
        flow.push(Ticket(0), job(&[10], 1000));
        assert!(flow.next_read(10, now).is_some());
        flow.end(Ticket(0), Ending::Failed(TransferError::Injected), now);
        assert_eq!(flow.end(Ticket(0), Ending::Aborted, now), None);
        let event = flow.failed(Ticket(0), TransferError::Stopped, now);
        assert_eq!(event, Some(TransferEvent::Failed { ticket: Ticket(0), error: TransferError::Injected }));
    }

    #[test]
    fn a_read_that_came_back_is_made_once_more() {
        let mut flow = Flow::default();
        let now = Instant::now();
        flow.push(Ticket(0), job(&[10, 20], 1000));
        let first = flow.next_read(100, now).unwrap();
        assert_eq!(flow.came_back(&first, &TransferError::Injected, now), None);
        flow.connection_renewed();
        assert_eq!(flow.next_read(100, now).unwrap().range, first.range);
        let event = flow.came_back(&first, &TransferError::Injected, now);
        assert_eq!(event, Some(TransferEvent::Failed { ticket: Ticket(0), error: TransferError::Injected }));
    }

    #[test]
    fn a_batch_that_gets_on_may_be_disturbed_again() {
        let (mut flow, now) = (Flow::default(), Instant::now());
        flow.push(Ticket(0), job(&[10; 8], 1000));
        for _ in 0..4 {
            let (read, landed) = (flow.next_read(10, now).unwrap(), flow.next_read(10, now).unwrap());
            assert_eq!(flow.landed(landed.ticket, now), None);
            assert_eq!(flow.came_back(&read, &TransferError::Injected, now), None, "progress was made in between");
            flow.connection_renewed();
        }
    }

    #[test]
    fn the_time_for_reading_begins_when_nothing_is_in_the_way() {
        let (mut flow, now) = (Flow::default(), Instant::now());
        let ms = |ms| now + Duration::from_millis(ms);
        flow.push(Ticket(0), job(&[10], 60_000));
        flow.push(Ticket(1), job(&[10], 60_000));
        assert!(flow.next_deadline() == Some(flow.batches[0].job.deadline().unwrap()), "nothing is read yet");
        // Both reads were handed out, and answers come in the same order.
        assert!(flow.next_read(10, now).is_some() && flow.next_read(10, now).is_some());
        assert!(flow.late(ms(29_999)).is_empty());
        let late = flow.late(ms(30_000));
        assert_eq!(late.len(), 1, "the one that waits has all its time");
        assert_eq!(late[0].1.to_string(), "read a batch: not done after 30000 ms");
        assert!(flow.landed(Ticket(0), ms(29_000)).is_some());
        assert_eq!(flow.next_deadline(), Some(ms(59_000)));
        assert!(flow.late(ms(58_999)).is_empty());
        assert_eq!(flow.late(ms(59_000)).len(), 1);
    }

    #[test]
    fn late_batches_are_named_with_their_deadline() {
        let mut flow = Flow::default();
        let job = job(&[10], 40);
        let deadline = job.deadline().unwrap();
        flow.push(Ticket(0), job);
        assert_eq!(flow.next_deadline(), Some(deadline));
        assert!(flow.late(deadline - Duration::from_millis(1)).is_empty());
        let late = flow.late(deadline);
        assert_eq!(late[0].1.to_string(), "pull a batch: not done after 40 ms");
        flow.forget(Ticket(0), Ending::Aborted, deadline);
        assert!(flow.is_empty());
    }
}
