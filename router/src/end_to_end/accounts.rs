//! Tests of what is counted of a request, and under which latency class.

use std::time::Duration;

use serde_json::json;

use super::deployment::{Deployment, Events, metric, metrics, post, until};
use crate::{SloClass, SloConfig};

#[tokio::test]
async fn a_refusal_at_the_first_gate_is_booked_under_the_class_that_the_header_names() {
    let (deployment, _parrot) =
        Deployment::aggregated(Duration::from_millis(5), |config| config.limits.requests_max = 1).await;
    let body = json!({"prompt": "ab", "max_tokens": 200, "stream": true});
    let mut first = Events::open(&deployment, "/v1/completions", &body).await;
    first.next().await.unwrap();

    let booked = || metric("baton_requests_total", &["class=\"batch\"", "outcome=\"overloaded\""]);
    assert!(booked().abs() < 0.5, "no other test is refused in this class");
    let mut request = post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1}));
    request.headers_mut().insert("x-baton-slo-class", "batch".parse().unwrap());
    let refused = deployment.call(request).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!((booked() - 1.0).abs() < 0.5, "{}", booked());

    let mut request = post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1}));
    request.headers_mut().insert("x-baton-slo-class", "gold".parse().unwrap());
    assert_eq!(deployment.call(request).await.status, 429, "an unknown class is no way around the gate");
    drop(first);
    deployment.stop().await;
}

/// A class and a model that no other test has.
fn alone(config: &mut crate::Config, name: &str) {
    let class =
        SloClass { name: name.to_owned(), ttft_ms: 60_000, tpot_ms: 60_000, itl_ms: 60_000, itl_quantile: 0.99 };
    config.slo = SloConfig { default_class: name.to_owned(), classes: vec![class] };
    config.model_names = vec![name.to_owned()];
}

fn counted(name: &str, labels: [&str; 2]) -> u64 {
    metric(name, &labels) as u64
}

/// Clients that left were counted as served in time, so a service whose clients press stop looked better than it was.
#[tokio::test]
async fn a_client_that_leaves_in_time_is_not_judged() {
    let own = r#"model="leaver""#;
    let (deployment, _parrot) =
        Deployment::aggregated(Duration::from_millis(5), |config| alone(config, "leaver")).await;
    let body = json!({"prompt": "ab", "max_tokens": 200, "stream": true});
    let mut stays = body.clone();
    stays["max_tokens"] = json!(2);
    Events::open(&deployment, "/v1/completions", &stays).await.all().await;
    let mut leaves = Events::open(&deployment, "/v1/completions", &body).await;
    leaves.next().await.unwrap();
    drop(leaves);
    until("it is booked", || counted("baton_requests_total", [own, r#"outcome="cancelled""#]) == 1).await;
    for name in ["baton_slo_judged_total", "baton_goodput_requests_total"] {
        assert_eq!(counted(name, [own, "class"]), 1, "{name}: the one that stayed");
    }
    for (reason, choices) in [("length", 1), ("abort", 1), ("stop", 0), ("error", 0)] {
        assert_eq!(counted("baton_choices_total", [own, &format!("reason=\"{reason}\"")]), choices, "{reason}");
    }
    let text = metrics().render();
    for line in [
        r#"baton_requests_total{role="router",class="leaver",model="leaver",outcome="kv_lost"} 0"#,
        r#"baton_retries_total{role="router",reason="kv_lost"} 0"#,
        r#"baton_handoffs_given_up_total{role="router",instead="failed"} 0"#,
    ] {
        assert!(text.contains(line), "it is there before it happens: {line}\n{text}");
    }
    deployment.stop().await;
}

#[tokio::test]
async fn vllms_names_are_there_for_who_asks() {
    let (deployment, _parrot) = Deployment::aggregated(Duration::from_millis(1), |_| {}).await;
    assert_eq!(deployment.post("/v1/completions", &json!({"prompt": "ab", "max_tokens": 3})).await.status, 200);
    assert!(!deployment.get("/metrics").await.body.contains("vllm:"));
    let page = deployment.get("/metrics?names=vllm").await.body;
    for name in ["vllm:time_to_first_token_seconds_count{model_name=", "vllm:generation_tokens_total{model_name="] {
        assert!(page.contains(name), "{name}\n{page}");
    }
    assert!(page.contains("baton_ttft_seconds_count{"), "beside ours: {page}");
    deployment.stop().await;
}
