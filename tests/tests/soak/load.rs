//! Load of a soak: what is sent when, who hangs up, and how each request ended; knows no worker.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use client::Error;
use client::http::{Client, Deadlines};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::asks::{Ask, Form, Said};
use crate::dice::Dice;

/// Requests at a time by which the capacity is found.
const CLOSED_LOOP: u64 = 16;
const CALIBRATION: Duration = Duration::from_secs(20);
/// Requests at a time beyond which none is sent: the rate was found on a machine that others use, too.
const IN_FLIGHT_MAX: usize = 256;
/// One request of this many is hung up on.
const HANG_UPS: u64 = 10;
/// Time after which a request hangs. The router ends each after `DEADLINE_MS`.
const HUNG: Duration = Duration::from_secs(75);
/// Time that the router has for a request.
pub(crate) const DEADLINE_MS: &str = "router.request.deadline_ms=60000";
const EXAMPLES_MAX: usize = 5;

/// Requests with the answers that they must get.
pub(crate) type Known = Arc<[(Ask, Vec<Said>)]>;

/// Returns a client of the deployment.
pub(crate) fn client(address: &str) -> Result<Client> {
    Ok(Client::new(address)?.with_deadlines(Deadlines { connect: Duration::from_secs(10), silence: HUNG }))
}

/// Requests per second that the deployment can serve, and how long one takes then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) requests_per_s: f64,
    pub(crate) mean_s: f64,
}

/// Finds the capacity in a closed loop; the first half of its time warms up.
pub(crate) async fn capacity(client: &Client, known: &Known) -> Result<Capacity> {
    let (began, ended) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let mut clients = JoinSet::new();
    for number in 0..CLOSED_LOOP {
        let (client, known, ended) = (client.clone(), Arc::clone(known), Arc::clone(&ended));
        clients.spawn(async move {
            let mut dice = Dice::new(number);
            while began.elapsed() < CALIBRATION {
                let sent = Instant::now();
                let (ask, _) = &known[dice.below(known.len() as u64) as usize];
                ask.put(&client, Form::Streamed).await?;
                ended.lock().unwrap_or_else(PoisonError::into_inner).push((began.elapsed(), sent.elapsed()));
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    let half = CALIBRATION / 2;
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    let counted: Vec<f64> =
        ended.iter().filter(|(at, _)| (half..CALIBRATION).contains(at)).map(|(_, took)| took.as_secs_f64()).collect();
    anyhow::ensure!(!counted.is_empty(), "no request ended within {half:?}");
    let mean_s = counted.iter().sum::<f64>() / counted.len() as f64;
    Ok(Capacity { requests_per_s: counted.len() as f64 / half.as_secs_f64(), mean_s })
}

/// How the requests ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    /// Requests that would have been too many at a time.
    pub(crate) not_sent: u64,
    pub(crate) right: u64,
    pub(crate) hung_up: u64,
    /// Clear errors, by message.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) hung: u64,
    pub(crate) wrong: u64,
    /// What some of the hung and wrong ones were.
    pub(crate) examples: Vec<String>,
}

enum Ending {
    Right,
    HungUp,
    Error(String),
    Hung(String),
    Wrong(String),
}

/// Sends requests at a rate for a while, and waits for the last.
pub(crate) async fn run(
    client: &Client,
    known: &Known,
    capacity: Capacity,
    share: f64,
    length: Duration,
) -> Result<Tally> {
    let (tally, places) = (Arc::new(Mutex::new(Tally::default())), Arc::new(Semaphore::new(IN_FLIGHT_MAX)));
    let (mut dice, began) = (Dice::new(1), tokio::time::Instant::now());
    let (mut due, mut requests) = (Duration::ZERO, JoinSet::new());
    loop {
        due += Duration::from_secs_f64(dice.exponential() / (capacity.requests_per_s * share));
        if due > length {
            break;
        }
        sleep_until(began + due).await;
        while let Some(done) = requests.try_join_next() {
            done?;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tally.lock().unwrap_or_else(PoisonError::into_inner).not_sent += 1;
            continue;
        };
        let which = dice.below(known.len() as u64) as usize;
        let form = if dice.below(4) == 0 { Form::Whole } else { Form::Streamed };
        let leaves =
            (dice.below(HANG_UPS) == 0).then(|| Duration::from_secs_f64(2.0 * capacity.mean_s * dice.uniform()));
        let (client, known, tally) = (client.clone(), Arc::clone(known), Arc::clone(&tally));
        requests.spawn(async move {
            let ending = one(&client, &known[which], form, leaves).await;
            tally.lock().unwrap_or_else(PoisonError::into_inner).count(ending);
            drop(place);
        });
    }
    while let Some(done) = requests.join_next().await {
        done?;
    }
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *tally))
}

/// Sends one request, which is hung up on after `leaves` if it has not ended.
async fn one(client: &Client, (ask, expected): &(Ask, Vec<Said>), form: Form, leaves: Option<Duration>) -> Ending {
    let leaving = async {
        match leaves {
            Some(after) => sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let answer = tokio::select! {
        answer = timeout(HUNG, ask.put(client, form)) => answer,
        () = leaving => return Ending::HungUp,
    };
    match answer {
        Err(_) => Ending::Hung(format!("{ask:?} ({form:?}) has not ended after {HUNG:?}")),
        Ok(Ok(said)) if said == *expected => Ending::Right,
        Ok(Ok(said)) => Ending::Wrong(format!("{ask:?} ({form:?}) got {said:?}, expected {expected:?}")),
        Ok(Err(error)) => match error.downcast_ref::<Error>() {
            Some(Error::Stalled { .. }) => Ending::Hung(format!("{ask:?} ({form:?}): {error:#}")),
            Some(Error::Status { status: 429 | 500.., .. } | Error::ErrorEvent(_)) => Ending::Error(error.to_string()),
            // A connection that breaks says nothing to the client, and no request here is one to refuse.
            _ => Ending::Wrong(format!("{ask:?} ({form:?}): {error:#}")),
        },
    }
}

impl Tally {
    fn count(&mut self, ending: Ending) {
        self.sent += 1;
        match ending {
            Ending::Right => self.right += 1,
            Ending::HungUp => self.hung_up += 1,
            Ending::Error(message) => *self.errors.entry(message).or_default() += 1,
            Ending::Hung(what) => {
                self.hung += 1;
                self.show(what);
            }
            Ending::Wrong(what) => {
                self.wrong += 1;
                self.show(what);
            }
        }
    }

    fn show(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }

    /// Returns the number of requests that got a clear error.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sent, not_sent, right, hung_up, hung, wrong, .. } = self;
        write!(
            f,
            "{sent} sent, {right} right, {hung_up} hung up, {} clear errors, {wrong} wrong, {hung} hung; ",
            self.failed()
        )?;
        write!(f, "{not_sent} not sent because {IN_FLIGHT_MAX} were running")?;
        for (message, count) in &self.errors {
            write!(f, "\n{count} times: {message}")?;
        }
        for example in &self.examples {
            write!(f, "\nfor example: {example}")?;
        }
        Ok(())
    }
}
