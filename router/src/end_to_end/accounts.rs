//! Tests of the latency class under which a request is counted.

use std::time::Duration;

use serde_json::json;

use super::deployment::{Deployment, Events, metric, post};

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
