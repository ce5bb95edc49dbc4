//! Keeps one child alive: restarts it at the same addresses when it ends, stops it when told to.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, warn};

use super::child::{Child, Launch};
use super::narrator::Narrator;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A child that lived this long was healthy: its next restart is not delayed.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// Watches `child` until `stop` turns true. `launch` must name the addresses that `child` announced.
pub async fn keep_alive(mut child: Child, launch: Launch, mut stop: watch::Receiver<bool>, narrator: Narrator) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let since = Instant::now();
        tokio::select! {
            () = told_to_stop(&mut stop) => {
                if let Err(problem) = child.stop().await {
                    error!(child = launch.name, %problem, "child did not stop cleanly");
                }
                return;
            }
            ended = child.ended() => warn!(child = launch.name, pid = child.pid, status = ?ended.ok(), "child ended, restarting it"),
        }
        if since.elapsed() > HEALTHY_AFTER {
            backoff = BACKOFF_MIN;
        }
        child = tokio::select! {
            () = told_to_stop(&mut stop) => return,
            restarted = restart(&launch, &mut backoff) => restarted,
        };
        narrator.ready(&launch.name, &child);
    }
}

async fn restart(launch: &Launch, backoff: &mut Duration) -> Child {
    loop {
        sleep(*backoff).await;
        *backoff = (*backoff * 2).min(BACKOFF_MAX);
        match Child::start(launch).await {
            Ok(child) => return child,
            Err(problem) => error!(child = launch.name, %problem, "restart failed"),
        }
    }
}

/// Resolves when `stop` turns true, or when nobody can turn it any more.
pub async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Starts every launch at the same time; all or none.
pub async fn start_all(launches: &[Launch]) -> Result<Vec<Child>> {
    let mut starts = tokio::task::JoinSet::new();
    for (index, launch) in launches.iter().cloned().enumerate() {
        starts.spawn(async move { Child::start(&launch).await.map(|child| (index, child)) });
    }
    let mut children = Vec::with_capacity(launches.len());
    while let Some(started) = starts.join_next().await {
        children.push(started??);
    }
    children.sort_by_key(|(index, _)| *index);
    Ok(children.into_iter().map(|(_, child)| child).collect())
}
