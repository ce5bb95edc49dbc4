//! Places of connections, and which of them can be taken back; knows no socket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Shortest wait for a request, or for the rest of one, after which a connection may be asked to close; during a
/// shorter wait the request may be on its way.
const IDLE_MIN: Duration = Duration::from_millis(50);

/// All places; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    max: usize,
    table: Arc<Mutex<Table>>,
    /// Requests of all connections whose answers are not complete.
    requests: Arc<AtomicUsize>,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    taken: usize,
    next: u64,
    /// Connections without a whole request, by the start of their wait.
    idle: BTreeMap<(Instant, u64), Arc<Notify>>,
}

#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    number: u64,
    go: Arc<Notify>,
    usage: Mutex<Use>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    /// Requests whose answers are not complete.
    requests: u32,
    /// Those of them that have arrived completely.
    complete: u32,
    /// Time since which the client owes the next request, or the rest of this one.
    idle_since: Instant,
}

/// Request that has come in part, or is being answered. Only a complete request protects the place, so a client that
/// just announces one keeps nobody out.
#[derive(Debug)]
pub(super) struct Occupied {
    seat: Arc<Seat>,
    is_complete: AtomicBool,
}

impl Seats {
    pub(super) fn new(max: usize) -> Seats {
        Seats { max: max.max(1), table: Arc::default(), requests: Arc::default(), freed: Arc::default() }
    }

    /// Waits for a place; while there is none, asks idle connections to close.
    pub(super) async fn take(&self) -> Seat {
        loop {
            let freed = self.freed.notified();
            if let Some(seat) = self.try_take() {
                return seat;
            }
            self.ask_longest_idle_to_go();
            // Perhaps none is idle long enough yet, so ask again after a while.
            let _ = tokio::time::timeout(IDLE_MIN, freed).await;
        }
    }

    /// Asks the connection that has waited longest for a request to close, if the wait is long enough.
    pub(super) fn ask_longest_idle_to_go(&self) {
        let mut table = locked(&self.table);
        let longest = table.idle.first_key_value().map(|(key, go)| (*key, Arc::clone(go)));
        if let Some((key, go)) = longest
            && key.0.elapsed() >= IDLE_MIN
        {
            table.idle.remove(&key);
            go.notify_one();
        }
    }

    fn try_take(&self) -> Option<Seat> {
        let mut table = locked(&self.table);
        if table.taken >= self.max {
            return None;
        }
        table.taken += 1;
        table.next += 1;
        let usage = Mutex::new(Use { requests: 0, complete: 0, idle_since: Instant::now() });
        Some(Seat { seats: self.clone(), number: table.next, go: Arc::new(Notify::new()), usage })
    }
}

impl Seat {
    /// Notes that a connection has come, which owes its first request from now on. Until then the place is free, however
    /// long ago it was taken for the next one.
    pub(super) fn begin(&self) {
        self.begin_idle(&mut locked(&self.usage));
    }

    /// Notes that the head of a request has come.
    pub(super) fn occupy(self: &Arc<Self>) -> Occupied {
        self.seats.requests.fetch_add(1, Ordering::Relaxed);
        let mut usage = locked(&self.usage);
        usage.requests += 1;
        if usage.complete == 0 {
            self.forget_idle(&usage);
            self.begin_idle(&mut usage);
        }
        drop(usage);
        Occupied { seat: Arc::clone(self), is_complete: AtomicBool::new(false) }
    }

    /// Returns true if there are more requests than connections may be. A connection of HTTP/1.1 has one at a time, and
    /// what a request costs before it is let in is bounded on that assumption. Connections that only owe parts of
    /// requests have to make room then.
    pub(super) fn is_crowded(&self) -> bool {
        let is_crowded = self.seats.requests.load(Ordering::Relaxed) > self.seats.max;
        if is_crowded {
            self.seats.ask_longest_idle_to_go();
        }
        is_crowded
    }

    /// Returns true if the client still owes a part of its request.
    pub(super) fn is_owed(&self) -> bool {
        let usage = locked(&self.usage);
        usage.requests > usage.complete
    }

    fn begin_idle(&self, usage: &mut Use) {
        usage.idle_since = Instant::now();
        locked(&self.seats.table).idle.insert((usage.idle_since, self.number), Arc::clone(&self.go));
    }

    fn forget_idle(&self, usage: &Use) {
        locked(&self.seats.table).idle.remove(&(usage.idle_since, self.number));
    }

    /// Resolves when another connection needs the place.
    pub(super) async fn asked_to_go(&self) {
        self.go.notified().await;
    }

    /// Resolves when the client has owed a request for longer than `time`.
    pub(super) async fn waits_longer_than(&self, time: Duration) {
        loop {
            let usage = *locked(&self.usage);
            let since = if usage.requests == 0 { usage.idle_since } else { Instant::now() };
            if usage.requests == 0 && since.elapsed() >= time {
                return;
            }
            tokio::time::sleep_until(since + time).await;
        }
    }

    /// Resolves when no request has run here for `time` from now on.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            tokio::time::sleep(time).await;
            let usage = *locked(&self.usage);
            if usage.requests == 0 && usage.idle_since.elapsed() >= time {
                return;
            }
        }
    }
}

impl Occupied {
    /// Notes that the request is complete, or that its answer does not wait for the rest.
    pub(super) fn complete(&self) {
        let mut usage = locked(&self.seat.usage);
        if !self.is_complete.swap(true, Ordering::Relaxed) {
            usage.complete += 1;
            self.seat.forget_idle(&usage);
        }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.seat.seats.requests.fetch_sub(1, Ordering::Relaxed);
        let mut usage = locked(&self.seat.usage);
        usage.requests -= 1;
        if self.is_complete.load(Ordering::Relaxed) {
            usage.complete -= 1;
        }
        if usage.complete == 0 {
            self.seat.forget_idle(&usage);
            self.seat.begin_idle(&mut usage);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let idle_since = locked(&self.usage).idle_since;
        let mut table = locked(&self.seats.table);
        table.idle.remove(&(idle_since, self.number));
        table.taken -= 1;
        drop(table);
        self.seats.freed.notify_one();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a place for a connection that is there already.
    async fn sit(seats: &Seats) -> Seat {
        let seat = seats.take().await;
        seat.begin();
        seat
    }

    /// Found by trying: the first connection after a quiet time was closed at once.
    #[tokio::test(start_paused = true)]
    async fn a_place_owes_nothing_before_somebody_comes() {
        let (seats, time) = (Seats::new(2), Duration::from_secs(1));
        let seat = seats.take().await;
        tokio::time::advance(10 * time).await;
        seats.ask_longest_idle_to_go();
        seat.begin();
        assert!(tokio::time::timeout(time, seat.asked_to_go()).await.is_err(), "it was nobody's");
        assert!(tokio::time::timeout(time / 2, seat.waits_longer_than(2 * time)).await.is_err(), "just come");
        tokio::time::timeout(time, seat.waits_longer_than(2 * time)).await.expect("it waits for long now");
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_goes_first_and_the_busy_stay() {
        let seats = Seats::new(3);
        let busy = Arc::new(sit(&seats).await);
        let occupied = busy.occupy();
        occupied.complete();
        tokio::time::advance(IDLE_MIN).await;
        let first = sit(&seats).await;
        tokio::time::advance(IDLE_MIN).await;
        let second = sit(&seats).await;
        let newcomer = tokio::spawn({
            let seats = seats.clone();
            async move { sit(&seats).await }
        });
        first.asked_to_go().await;
        drop(first);
        let third = newcomer.await.unwrap();
        assert_eq!(locked(&seats.table).idle.len(), 2, "two wait for a request, one is busy");
        drop((second, third, busy, occupied));
        let table = locked(&seats.table);
        assert_eq!((table.taken, table.idle.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_owes_the_rest_of_a_request_is_asked_to_go() {
        let seats = Seats::new(2);
        let owing = Arc::new(sit(&seats).await);
        tokio::time::advance(IDLE_MIN).await;
        let announced = owing.occupy();
        let idle = sit(&seats).await;
        assert!(owing.is_owed() && !idle.is_owed());
        tokio::time::advance(IDLE_MIN).await;
        seats.ask_longest_idle_to_go();
        tokio::time::timeout(IDLE_MIN, owing.asked_to_go()).await.expect("its head came first");
        announced.complete();
        announced.complete();
        assert!(!owing.is_owed());
        seats.ask_longest_idle_to_go();
        tokio::time::timeout(IDLE_MIN, idle.asked_to_go()).await.expect("the other is busy now");
        assert!(locked(&seats.table).idle.is_empty());
        drop(announced);
        assert_eq!(locked(&seats.table).idle.len(), 1, "it waits for the next request");
        drop((owing, idle));
        assert!(locked(&seats.table).idle.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_is_never_asked_to_go() {
        let seats = Seats::new(1);
        let busy = Arc::new(sit(&seats).await);
        let occupied = busy.occupy();
        occupied.complete();
        let late = tokio::time::timeout(Duration::from_secs(5), seats.take()).await;
        assert!(late.is_err(), "all places are busy");
        drop(occupied);
        tokio::time::timeout(Duration::from_secs(5), async {
            tokio::join!(busy.asked_to_go(), async {
                let _ = tokio::time::timeout(Duration::from_secs(1), seats.take()).await;
            })
        })
        .await
        .expect("idle at last");
    }
}
