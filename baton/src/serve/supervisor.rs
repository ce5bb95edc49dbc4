//! Keeps one child alive: restarts it at the same addresses when it ends, stops it when told to.

use std::time::{Duration, Instant};

use anyhow::Result;
use node::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, warn};

use super::child::{Child, Launch};
use super::narrator::Narrator;
use crate::cli::told;
use crate::ending::Ending;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Life after which a child counts as healthy, so that its next restart is hardly delayed.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// Watches `child` until `stop` turns true. `launch` must name the addresses that `child` announced.
pub async fn keep_alive(
    mut child: Child,
    launch: Launch,
    mut stop: watch::Receiver<bool>,
    (narrator, ending): (Narrator, Ending),
) {
    let mut backoff = Backoff::from(BACKOFF_MIN);
    loop {
        let since = Instant::now();
        tokio::select! {
            () = told_to_stop(&mut stop) => {
                if let Err(problem) = child.stop().await {
                    error!(worker = launch.name, problem = told(&problem), "a worker did not stop in order");
                }
                return;
            }
            ended = child.ended() => {
                let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                if since.elapsed() > HEALTHY_AFTER {
                    backoff.reset();
                }
                warn!(worker = launch.name, pid = child.pid, status, "a worker has ended: starting it again");
            }
        }
        child = tokio::select! {
            () = told_to_stop(&mut stop) => return,
            restarted = restart(&launch, &mut backoff, (narrator, &ending)) => restarted,
        };
        narrator.ready(&launch.name, &child);
    }
}

async fn restart(launch: &Launch, backoff: &mut Backoff, (narrator, ending): (Narrator, &Ending)) -> Child {
    loop {
        sleep(backoff.next_up_to(BACKOFF_MAX)).await;
        match Child::start(launch, narrator, ending).await {
            Ok(child) => return child,
            // The caller drops this future soon, as everything stops.
            Err(_) if ending.is_asked() => std::future::pending().await,
            Err(problem) => {
                error!(
                    worker = launch.name,
                    problem = told(&problem),
                    "a worker did not start; it will be tried again"
                );
            }
        }
    }
}

/// Resolves when `stop` turns true or its sender is gone.
pub async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Starts all launches at the same time; all or none.
pub async fn start_all(launches: &[Launch], (narrator, ending): (Narrator, &Ending)) -> Result<Vec<Child>> {
    let mut starts = tokio::task::JoinSet::new();
    for (index, launch) in launches.iter().cloned().enumerate() {
        let ending = ending.clone();
        starts.spawn(async move { Child::start(&launch, narrator, &ending).await.map(|child| (index, child)) });
    }
    let mut children = Vec::with_capacity(launches.len());
    let mut first_error = None;
    while let Some(started) = starts.join_next().await {
        match started? {
            Ok(child) => children.push(child),
            // The first error is the cause; that the others are stopped follows from it.
            Err(error) if first_error.is_none() && !ending.is_asked() => return Err(error),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    children.sort_by_key(|(index, _)| *index);
    Ok(children.into_iter().map(|(_, child)| child).collect())
}
