//! Tests of the errors for wrong and for too large requests.

use std::time::Duration;

use serde_json::json;

use super::FAST;
use super::deployment::{Deployment, Events, post};

#[tokio::test]
async fn every_error_has_the_body_that_clients_parse_and_a_request_id() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.limits.body_bytes_max = 4_096).await;
    let chat = "/v1/chat/completions";
    let user = json!([{"role": "user", "content": "x"}]);
    let requests = [
        (post(chat, &json!({"messages": []})), 400, "messages must not be empty"),
        (post(chat, &json!({"messages": user, "model": "gpt-9"})), 404, "gpt-9"),
        (post(chat, &json!({"messages": user, "slo_class": "gold"})), 400, "gold"),
        (post(chat, &json!({"messages": [{"role": "system", "content": "x"}]})), 400, "no system prompts here"),
        (post(chat, &json!({"messages": user, "stream": true, "temperature": 7})), 400, "temperature"),
        (
            post("/v1/completions", &json!({"prompt": "x", "max_tokens": 999})),
            400,
            "This model's maximum context length is 256",
        ),
        (post("/v1/completions", &json!({"prompt": vec![1; 300]})), 400, "This model's maximum context length is 256"),
        (post("/v1/completions", &json!({"prompt": "", "add_special_tokens": false})), 400, "no tokens"),
        (post("/v1/completions", &json!({"prompt": "x".repeat(5_000)})), 413, "4096"),
        (post("/v1/nothing", &json!({})), 404, "/v1/nothing"),
        (post("/v1/models", &json!({})), 405, "GET"),
        (hyper::Request::get("/v1/models/%ff").header("host", "localhost").body(String::new()).unwrap(), 400, "UTF-8"),
        (hyper::Request::get(chat).header("host", "localhost").body(String::new()).unwrap(), 405, "POST"),
    ];
    for (request, status, said) in requests {
        let what =
            format!("{} {} {}", request.method(), request.uri(), request.body().chars().take(60).collect::<String>());
        let answer = deployment.call(request).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        let error = &answer.json()["error"];
        assert!(error["message"].as_str().unwrap().contains(said), "{what}: {error}");
        assert!(error["type"].is_string(), "{what}: {error}");
        assert!(error.get("param").is_some() && (error["code"].is_string() || error["code"].is_null()), "{error}");
        assert!(!answer.header("x-request-id").is_empty());
    }
    deployment.stop().await;
}

/// Found by trying: each of these was accepted, or refused for another reason.
#[tokio::test]
async fn requests_that_http_refuses_are_refused() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let completion = || post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1}));
    let mut unnamed = completion();
    unnamed.headers_mut().remove("host");
    let mut packed = completion();
    packed.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    let mut wide = completion();
    wide.headers_mut().insert("content-type", "application/json; charset=utf-16".parse().unwrap());
    let bare = |path: &str| hyper::Request::post(path).header("host", "localhost").body(String::new()).unwrap();
    let put = |path: &str| hyper::Request::put(path).header("host", "localhost").body("{}".to_owned()).unwrap();
    for (request, status, said) in [
        (unnamed, 400, "no Host header"),
        (packed, 415, "gzip"),
        (wide, 415, "utf-16"),
        (put("/v1/models"), 405, "GET"),
        (put("/v1/completions"), 405, "POST"),
        // No route takes a body there, however it is declared.
        (bare("/health"), 405, "GET"),
        (bare("/v1/models/m"), 405, "GET"),
        (bare("/v1/nothing"), 404, "/v1/nothing"),
        (bare("/v1/embeddings"), 415, "content-type"),
    ] {
        let answer = deployment.call(request).await;
        assert_eq!(answer.status, status, "{said}: {}", answer.body);
        assert!(answer.body.contains(said), "{said}: {}", answer.body);
    }
    assert_eq!(deployment.call(completion()).await.status, 200);
    deployment.stop().await;
}

#[tokio::test]
async fn a_request_id_is_echoed_if_it_is_one() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |_| {}).await;
    let with = |id: &str| {
        hyper::Request::get("/health")
            .header("host", "localhost")
            .header("x-request-id", id)
            .body(String::new())
            .unwrap()
    };
    assert_eq!(deployment.call(with("mine-7")).await.header("x-request-id"), "mine-7");
    let longest = "a".repeat(128);
    assert_eq!(deployment.call(with(&longest)).await.header("x-request-id"), longest);
    for other in ["two words", &(longest + "a")] {
        let made = deployment.call(with(other)).await.header("x-request-id").to_owned();
        assert!(made.starts_with("req-") && made.len() == 20, "{other}: {made}");
    }
    deployment.stop().await;
}

#[tokio::test]
async fn overload_is_answered_at_once_with_a_time_to_come_back() {
    let (deployment, _parrot) =
        Deployment::aggregated(Duration::from_millis(5), |config| config.limits.requests_max = 1).await;
    let body = json!({"prompt": "ab", "max_tokens": 200, "stream": true});
    let mut first = Events::open(&deployment, "/v1/completions", &body).await;
    first.next().await.unwrap();
    let refused = deployment.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1})).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert!(refused.header("retry-after-ms").parse::<u64>().unwrap() >= 100);
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    drop(first);
    let mut status = 429;
    for _ in 0..1_000 {
        status = deployment.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1})).await.status;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status, 200, "the place was given back");
    deployment.stop().await;
}
