//! Tests of a co-located worker through HTTP: operators look at the division of its device and pin it while it serves.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, command};
use baton_tests::http;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// Address of the worker's admin surface, from its ready line.
fn admin(deployment: &Deployment) -> Result<SocketAddr> {
    let log = deployment.log();
    let address = log.lines().find_map(|line| line.split_once("admin http://").map(|(_, address)| address.trim()));
    address.context("no admin address")?.parse().context("an address")
}

fn text(deployment: &Deployment, seed: u64) -> Result<Value> {
    let body =
        json!({"prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": true, "seed": seed, "logprobs": 1});
    let answer = http::post(deployment.address, "/v1/completions", &body)?;
    ensure!(answer.status == 200, "{}", answer.body);
    Ok(answer.json()?["choices"].clone())
}

#[test]
fn shares_are_pinned_and_released_under_load_and_change_no_bit() -> Result<()> {
    let settings = ["--mode", "colocated", "--set", "engine.threads=2", "--set", "engine.share.prefill_percent=40"];
    let deployment = Deployment::start(&settings)?;
    let admin = admin(&deployment)?;
    let shown = http::get(admin, "/debug/partition")?.json()?;
    assert_eq!(shown["split"], json!({"prefill_percent": 40.0, "decode_percent": 60.0}));
    let expected: Vec<Value> = (0..4).map(|seed| text(&deployment, seed)).collect::<Result<_>>()?;
    std::thread::scope(|scope| -> Result<()> {
        let deployment = &deployment;
        let readers: Vec<_> = (0..4).map(|seed| scope.spawn(move || (seed, text(deployment, seed)))).collect();
        for percent in [5, 95, 30, 70] {
            let pinned = http::post(admin, "/admin/partition", &json!({"prefill_percent": percent}))?;
            ensure!(pinned.status == 200, "{}", pinned.body);
            assert_eq!(pinned.json()?["split"]["prefill_percent"], f64::from(percent));
            std::thread::sleep(Duration::from_millis(30));
        }
        for reader in readers {
            let (seed, text) = reader.join().expect("no panic");
            assert_eq!(text?, expected[seed as usize], "seed {seed}");
        }
        Ok(())
    })?;
    assert_eq!(http::post(admin, "/admin/partition", &json!("oversubscribed"))?.json()?["split"], "oversubscribed");
    let released = http::post(admin, "/admin/partition", &json!("release"))?.json()?;
    assert_eq!(released["split"]["prefill_percent"], 40.0, "what the configuration says");
    assert_eq!(released["last_decision"]["reason"], "released");
    for wrong in [json!({"prefill_percent": 0}), json!({"prefill_percent": "5"}), json!({"percent": 5}), json!([])] {
        assert_eq!(http::post(admin, "/admin/partition", &wrong)?.status, 400, "{wrong}");
    }
    deployment.wait_until("the metrics say so", SOON, |deployment| {
        let share = deployment.metric("baton_share_ratio", &["lane=\"prefill\""])?;
        let pinned = deployment.metric("baton_share_switches_total", &["reason=\"pinned\""])?;
        let used = deployment.metric("baton_lane_used_microseconds_total", &["lane=\"decode\""])?;
        Ok(share == 0.4 && pinned == 5.0 && used > 0.0)
    })
}

#[test]
fn a_controller_without_its_targets_is_refused_at_the_start() -> Result<()> {
    let settings = ["serve", "--mode", "colocated", "--listen", "127.0.0.1:0", "--set", "engine.share.policy=feedback"];
    let refused = command()?.args(settings).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("engine.share.ttft_ms: is 0, but policy = \"feedback\" needs a target"), "{said}");
    Ok(())
}
