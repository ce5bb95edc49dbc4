//! Turns of the lanes of a pool: weighted fair queueing in virtual time (Demers, Keshav, Shenker, 1989), one task at a
//! time; knows no task.
//!
//! A lane's virtual time is the core time that it has used, divided by its share. The lane with the least of it lags and
//! would be next; but threads that change lanes with every task lose warm caches, and lanes that read memory do it all at
//! once. So each thread has a favourite lane, and leaves it only when that is ahead by more than a little. A task is charged by estimate when it is claimed, so that a second thread does not see the lane lag still,
//! and by the clock when it is done.

use crate::sync::Instant;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Core time that a lane which was idle may use before the others get their share again: a few layers, so that steps
/// with pauses between them run as if they were alone.
const CREDIT_NS: u64 = 4_000_000;
/// Virtual time by which a lane may be ahead before its threads leave it for another one, and the core time that it has
/// at least until then. Longer stays keep caches warm; shorter ones keep steps even.
const AHEAD_NS: u64 = 1_000_000;
const STAY_NS: u64 = 300_000;
/// Longest time that counts for what ought to be short: whatever is beyond it, the system had taken the core away.
const TASK_NS_MAX: u64 = 2_000_000;
const SERIAL_NS_MAX: u64 = 20_000_000;
/// Parts in which the inverse of a share is counted.
const RATE_ONE: u64 = 1024;
pub(super) const SHARE_MIN: f32 = 0.01;
/// Sum of shares from which on they do not divide the cores.
const OVERSUBSCRIBED_FROM: f32 = 1.001;

pub(super) struct Turns {
    epoch: Instant,
    accounts: Box<[Account]>,
    /// The favourite lane of each worker.
    favourites: Box<[AtomicUsize]>,
    oversubscribed: AtomicBool,
}

/// What one lane has used. Aligned so that lanes do not share a cache line.
#[repr(align(128))]
#[derive(Default)]
struct Account {
    /// True while the lane has a step, also between its runs.
    busy: AtomicBool,
    virtual_ns: AtomicU64,
    /// Virtual time per core time, in [`RATE_ONE`] parts.
    rate: AtomicU64,
    /// Mean time of its tasks.
    estimate_ns: AtomicU64,
    /// Core time used so far.
    used_ns: AtomicU64,
    /// End of the last run, while the lane is busy.
    ran_until_ns: AtomicU64,
}

/// A task that was charged by estimate.
pub(super) struct Claim {
    lane: usize,
    began_ns: u64,
    estimate_ns: u64,
}

impl Turns {
    pub(super) fn new(lanes: usize, workers: usize) -> Turns {
        let turns = Turns {
            epoch: Instant::now(),
            accounts: (0..lanes).map(|_| Account::default()).collect(),
            favourites: (0..workers).map(|worker| AtomicUsize::new(worker % lanes)).collect(),
            oversubscribed: AtomicBool::new(lanes > 1),
        };
        turns.accounts.iter().for_each(|account| account.rate.store(RATE_ONE, Ordering::Relaxed));
        turns
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Shares of all lanes. If they sum to more than 1, nothing divides the cores. Nobody is ahead afterwards.
    pub(super) fn set_shares(&self, shares: &[f32]) {
        let latest = self.latest();
        for (account, share) in self.accounts.iter().zip(shares) {
            let rate = RATE_ONE as f32 / share.clamp(SHARE_MIN, 1.0);
            account.rate.store(rate as u64, Ordering::Relaxed);
            account.virtual_ns.store(latest, Ordering::Relaxed);
        }
        let favourites = favourites(shares, self.favourites.len());
        self.favourites.iter().zip(favourites).for_each(|(own, lane)| own.store(lane, Ordering::Relaxed));
        let sum: f32 = shares.iter().sum();
        self.oversubscribed.store(sum > OVERSUBSCRIBED_FROM, Ordering::Relaxed);
    }

    pub(super) fn favourite_of(&self, worker: usize) -> usize {
        self.favourites[worker].load(Ordering::Relaxed)
    }

    pub(super) fn are_oversubscribed(&self) -> bool {
        self.oversubscribed.load(Ordering::Relaxed)
    }

    /// The lane that a thread works for next which worked for lane `at` before. It leaves its favourite when that is
    /// ahead by more than a little, and returns when the lane that it went to has caught up.
    pub(super) fn lane_of(&self, favourite: usize, at: usize) -> usize {
        let Some(lagging) = self.lagging() else { return favourite };
        let at = if self.is_busy(at) { at } else { favourite };
        let ahead_max_ns = if at == favourite { self.ahead_max_ns(at) } else { 0 };
        if self.is_busy(at) && self.ahead_ns(at, lagging) <= ahead_max_ns { at } else { lagging }
    }

    fn ahead_max_ns(&self, lane: usize) -> i64 {
        self.accounts[lane].virtual_of(STAY_NS).max(AHEAD_NS) as i64
    }

    /// The busy lane that has used the least for its share.
    pub(super) fn lagging(&self) -> Option<usize> {
        self.busy().min_by(|a, b| self.ahead_ns(*a, *b).cmp(&0))
    }

    /// Virtual time by which lane `a` is ahead of lane `b`.
    fn ahead_ns(&self, a: usize, b: usize) -> i64 {
        let virtual_ns = |lane: usize| self.accounts[lane].virtual_ns.load(Ordering::Relaxed);
        virtual_ns(a).wrapping_sub(virtual_ns(b)) as i64
    }

    pub(super) fn is_busy(&self, lane: usize) -> bool {
        self.accounts[lane].busy.load(Ordering::Relaxed)
    }

    /// True if no other lane is busy.
    pub(super) fn is_alone(&self, lane: usize) -> bool {
        (0..self.accounts.len()).all(|other| other == lane || !self.is_busy(other))
    }

    fn busy(&self) -> impl Iterator<Item = usize> {
        (0..self.accounts.len()).filter(|lane| self.is_busy(*lane))
    }

    fn latest(&self) -> u64 {
        let latest = (0..self.accounts.len()).max_by(|a, b| self.ahead_ns(*a, *b).cmp(&0));
        latest.map_or(0, |lane| self.accounts[lane].virtual_ns.load(Ordering::Relaxed))
    }

    /// A run of the lane begins. What its caller did since the last one is charged; what it did not use while it was
    /// idle is not saved up, beyond a small credit.
    pub(super) fn run_begins(&self, lane: usize) {
        let account = &self.accounts[lane];
        if account.busy.swap(true, Ordering::Relaxed) {
            self.charge_serial(account);
        }
        let others = self.busy().filter(|other| *other != lane);
        let Some(least) = others.min_by(|a, b| self.ahead_ns(*a, *b).cmp(&0)) else { return };
        let least_ns = self.accounts[least].virtual_ns.load(Ordering::Relaxed);
        let floor_ns = least_ns.wrapping_sub(account.virtual_of(CREDIT_NS));
        if floor_ns.wrapping_sub(account.virtual_ns.load(Ordering::Relaxed)) as i64 > 0 {
            account.virtual_ns.store(floor_ns, Ordering::Relaxed);
        }
    }

    pub(super) fn run_ends(&self, lane: usize) {
        self.accounts[lane].ran_until_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    /// The lane has nothing to do until its next run.
    pub(super) fn rests(&self, lane: usize) {
        let account = &self.accounts[lane];
        if account.busy.swap(false, Ordering::Relaxed) {
            self.charge_serial(account);
        }
    }

    fn charge_serial(&self, account: &Account) {
        let since_ns = self.now_ns().saturating_sub(account.ran_until_ns.load(Ordering::Relaxed));
        account.charge(since_ns.min(SERIAL_NS_MAX));
    }

    /// Charges core time that was measured, not estimated.
    pub(super) fn charge(&self, lane: usize, core_ns: u64) {
        self.accounts[lane].charge(core_ns);
    }

    pub(super) fn used_ns(&self, lane: usize) -> u64 {
        self.accounts[lane].used_ns.load(Ordering::Relaxed)
    }

    pub(super) fn claim(&self, lane: usize, began_ns: u64) -> Claim {
        let account = &self.accounts[lane];
        let estimate_ns = account.estimate_ns.load(Ordering::Relaxed);
        account.virtual_ns.fetch_add(account.virtual_of(estimate_ns), Ordering::Relaxed);
        Claim { lane, began_ns, estimate_ns }
    }

    /// Corrects the charge of a claim; returns the time of its end.
    pub(super) fn done(&self, Claim { lane, began_ns, estimate_ns }: Claim) -> u64 {
        let (account, ended_ns) = (&self.accounts[lane], self.now_ns());
        let took_ns = ended_ns.saturating_sub(began_ns).min(TASK_NS_MAX.max(8 * estimate_ns));
        let correction = account.virtual_of(took_ns).wrapping_sub(account.virtual_of(estimate_ns));
        account.virtual_ns.fetch_add(correction, Ordering::Relaxed);
        account.used_ns.fetch_add(took_ns, Ordering::Relaxed);
        account.estimate_ns.store((7 * estimate_ns + took_ns) / 8, Ordering::Relaxed);
        ended_ns
    }
}

/// The favourite lane of each of so many workers. With its caller, a lane has as many threads as its share is worth, to
/// the nearest.
fn favourites(shares: &[f32], workers: usize) -> Vec<usize> {
    let per_share = (shares.len() + workers) as f32 / shares.iter().sum::<f32>();
    let wanted: Vec<f32> = shares.iter().map(|share| (share * per_share - 1.0).max(0.0)).collect();
    let scale = workers as f32 / wanted.iter().sum::<f32>().max(f32::MIN_POSITIVE);
    let lane_of = |worker: usize| {
        let mut end = 0.0;
        let ends = wanted.iter().map(|wanted| {
            end += wanted * scale;
            end
        });
        ends.take_while(|end| *end <= worker as f32 + 0.5).count().min(shares.len() - 1)
    };
    (0..workers).map(lane_of).collect()
}

impl Account {
    fn charge(&self, core_ns: u64) {
        self.virtual_ns.fetch_add(self.virtual_of(core_ns), Ordering::Relaxed);
        self.used_ns.fetch_add(core_ns, Ordering::Relaxed);
    }

    fn virtual_of(&self, core_ns: u64) -> u64 {
        core_ns * self.rate.load(Ordering::Relaxed) / RATE_ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_go_to_lanes_as_shares_ask() {
        let count = |shares: &[f32], workers| {
            let all = favourites(shares, workers);
            (0..shares.len()).map(|lane| all.iter().filter(|favourite| **favourite == lane).count()).collect::<Vec<_>>()
        };
        assert_eq!(count(&[0.5, 0.5], 14), [7, 7]);
        assert_eq!(count(&[0.75, 0.25], 14), [11, 3]);
        assert_eq!(count(&[0.95, 0.05], 2), [2, 0]);
        assert_eq!(count(&[0.05, 0.95], 2), [0, 2]);
        assert_eq!(count(&[1.0, 1.0], 3), [1, 2]);
        assert_eq!(count(&[0.2, 0.3, 0.5], 7), [1, 2, 4]);
        assert_eq!(count(&[1.0], 3), [3]);
        assert_eq!(count(&[0.5, 0.5], 0), [0, 0]);
    }

    /// What lane the two threads of a pool of two lanes work for, one task of 50 µs each at a time.
    fn lanes_of_tasks(share: f32, tasks: usize) -> Vec<[usize; 2]> {
        let turns = Turns::new(2, 0);
        turns.set_shares(&[share, 1.0 - share]);
        (0..2).for_each(|lane| turns.run_begins(lane));
        let mut at = [0, 1];
        let step = |_| {
            at = [0, 1].map(|thread| turns.lane_of(thread, at[thread]));
            at.iter().for_each(|lane| turns.charge(*lane, 50_000));
            at
        };
        (0..tasks).map(step).collect()
    }

    #[test]
    fn at_half_each_thread_keeps_to_its_lane() {
        assert!(lanes_of_tasks(0.5, 1_000).iter().all(|at| *at == [0, 1]));
    }

    #[test]
    fn a_thread_whose_lane_is_ahead_helps_out_for_a_while_and_returns() {
        for share in [0.1, 0.3, 0.7, 0.9] {
            let tasks = lanes_of_tasks(share, 10_000);
            let of_first: usize = tasks.iter().flatten().filter(|lane| **lane == 0).count();
            assert!((of_first as f32 / 20_000.0 - share).abs() < 0.01, "{share}: {of_first}");
            let helper = if share > 0.5 { 1 } else { 0 };
            assert!(tasks.iter().all(|at| at[1 - helper] == 1 - helper), "{share}: one thread never leaves");
            let moves = tasks.windows(2).filter(|pair| pair[0][helper] != pair[1][helper]).count();
            assert!((300..5_000).contains(&moves), "{share}: {moves} moves in 10,000 tasks");
        }
    }
}
