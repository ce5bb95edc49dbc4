//! Shares of co-located workers that move while requests run; knows no request.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use client::http::Client;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use xxhash_rust::xxh3::xxh3_64;

/// Time between two moves: a fraction of most steps' prompts, and a few decode steps.
const EVERY: Duration = Duration::from_millis(50);

/// Gives prefill a random share of each of these workers' devices, again and again.
pub(super) async fn keep_moving(admin_addresses: &[String]) -> Result<Infallible> {
    let workers = admin_addresses.iter().map(|address| Client::new(address)).collect::<client::Result<Vec<_>>>()?;
    let mut due = interval(EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        due.tick().await;
        for worker in &workers {
            let share = json!({ "prefill_percent": percent(number) });
            worker.post("/admin/partition", &share).await.context("the share of a worker cannot be set")?;
        }
    }
    std::future::pending().await
}

/// 1 to 99, in no order, the same in every run.
fn percent(number: u64) -> u64 {
    1 + xxh3_64(&number.to_le_bytes()) % 99
}
