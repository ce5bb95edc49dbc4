//! Tests of what hostile, slow and departing clients cost the others.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::FAST;
use super::deployment::{Answer, Deployment, Events, PATIENCE, metric, post, until};
use crate::SloClass;

const SMALL: &str = r#"{"prompt": "x", "max_tokens": 1}"#;

fn head(length: usize, class: &str) -> String {
    format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         x-baton-slo-class: {class}\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn connect(deployment: &Deployment, said: &str) -> TcpStream {
    let mut client = TcpStream::connect(deployment.address).await.unwrap();
    client.write_all(said.as_bytes()).await.unwrap();
    client
}

/// Sends a whole request over a kept connection, and reads the head and body of the answer.
async fn ask(client: &mut TcpStream) -> String {
    let request = format!("{}{SMALL}", head(SMALL.len(), "interactive"));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with('}') {
        let mut bytes = [0; 4096];
        let read = timeout(PATIENCE, client.read(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    answer
}

#[tokio::test]
async fn what_clients_announce_keeps_nobody_out() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
        config.limits.requests_max = 2;
        config.limits.bytes_max = config.limits.body_bytes_max;
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(connect(&deployment, &(head(8 << 20, "interactive") + "{")).await);
        let chunked = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n";
        idle.push(connect(&deployment, chunked).await);
    }
    for _ in 0..10 {
        let answer = deployment.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    drop(idle);
    deployment.stop().await;
}

#[tokio::test]
async fn connections_that_wait_make_room_for_requests() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.limits.connections_max = 4).await;
    let mut idle = Vec::new();
    for said in ["", "G", "GET /health HTTP/1.1\r\n", "", "", "", "", ""] {
        idle.push(connect(&deployment, said).await);
    }
    for _ in 0..5 {
        let answer = timeout(PATIENCE, deployment.get("/health")).await.expect("a place");
        assert_eq!(answer.status, 200);
    }
    deployment.stop().await;
}

#[tokio::test]
async fn connections_whose_bodies_do_not_come_make_room_for_requests() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
        config.limits.connections_max = 4;
        config.limits.body_bytes_per_s_min = 1;
        config.limits.body_ms_max = 600_000;
    })
    .await;
    let half = head(8 << 20, "interactive") + &" ".repeat(4_096);
    let mut announced = Vec::new();
    for _ in 0..8 {
        announced.push(connect(&deployment, &half).await);
    }
    for _ in 0..5 {
        let answer = timeout(PATIENCE, deployment.get("/health")).await.expect("a place");
        assert_eq!(answer.status, 200);
    }
    drop(announced);
    deployment.stop().await;
}

fn counted(config: &mut crate::Config, class: &str) {
    let name = class.to_owned();
    config.slo.classes.push(SloClass { name, ..config.slo.classes[0].clone() });
    config.limits.body_bytes_max = 4_096;
}

#[tokio::test]
async fn every_request_ends_in_exactly_one_outcome() {
    let class = "counted";
    let (deployment, _parrot) = Deployment::aggregated(Duration::from_millis(3), |config| counted(config, class)).await;
    let outcomes = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        metric("baton_requests_total", &["class=\"counted\"", if outcome.contains("any") { "" } else { &outcome }])
            as u64
    };
    // Clients that leave at once, with and without a body.
    for _ in 0..100 {
        drop(connect(&deployment, &(head(SMALL.len(), class) + SMALL)).await);
        drop(connect(&deployment, &head(SMALL.len(), class)).await);
    }
    // Requests refused for every reason.
    let with_class = |body: &str| {
        let mut request = post("/v1/completions", &json!({})).map(|_| body.to_owned());
        request.headers_mut().insert("x-baton-slo-class", class.parse().unwrap());
        request
    };
    let long = format!(r#"{{"prompt": "{}"}}"#, "x".repeat(5_000));
    for (body, status) in [("", 400), ("[]", 400), (long.as_str(), 413), (r#"{"prompt": "x", "model": "y"}"#, 404)] {
        assert_eq!(deployment.call(with_class(body)).await.status, status);
    }
    for (header, value, status) in
        [("host", "evil.example", 403), ("origin", "http://evil.example", 403), ("content-type", "text/plain", 415)]
    {
        let mut request = with_class(SMALL);
        request.headers_mut().insert(header, value.parse().unwrap());
        let answer = deployment.call(request).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.json()["error"]["code"].is_string());
    }
    // Requests that are served, and clients that leave during the answer.
    assert_eq!(deployment.call(with_class(SMALL)).await.status, 200);
    let endless = r#"{"prompt": "x", "max_tokens": 200}"#;
    for _ in 0..5 {
        let mut client = connect(&deployment, &(head(endless.len(), class) + endless)).await;
        let _ = timeout(Duration::from_millis(20), client.read_u8()).await;
    }
    let all = 200 + 4 + 3 + 1 + 5;
    until("all are counted", || outcomes("any") >= all).await;
    assert_eq!(outcomes("any"), all, "and each once");

    deployment.stop().await;
}

#[tokio::test]
async fn a_text_that_cannot_fit_is_refused_before_any_work() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.limits.text_cpu_ms_max = 1_000).await;
    // 256 tokens of at most 13 bytes: encoding this would take longer than a second.
    let text = "7".repeat(4 << 20);
    for (path, body) in [
        ("/v1/completions", json!({"prompt": text})),
        ("/v1/completions", json!({"prompt": ["x", text]})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": text}]})),
    ] {
        let answer = deployment.post(path, &body).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("This model's maximum context length is 256 tokens"), "{message}");
        assert!(message.contains("at least 32"), "{message}");
    }
    let counted = deployment.post("/tokenize", &json!({"prompt": text})).await;
    assert_eq!(counted.status, 400, "a text that is only counted has bounds too: {}", counted.body);
    deployment.stop().await;
}

#[tokio::test]
async fn output_is_bounded_like_input() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
        config.limits.output_tokens_max = 1_000;
        config.limits.answer_bytes_max = 20_000;
    })
    .await;
    let body = json!({"prompt": ["a", "b", "c"], "n": 4, "max_tokens": 100});
    let refused = deployment.post("/v1/completions", &body).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(refused.body.contains("12 choices of up to 100 tokens are more than the 1000"), "{}", refused.body);
    let one = deployment.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 200})).await;
    assert_eq!(one.status, 200, "{}", one.body);

    let heavy = json!({"prompt": "ab", "max_tokens": 200, "logprobs": 20});
    let refused = deployment.post("/v1/completions", &heavy).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (400, Some("answer_too_large")));
    deployment.stop().await;
}

#[tokio::test]
async fn what_an_answer_repeats_of_its_prompts_counts_as_its_bytes() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.limits.answer_bytes_max = 20_000).await;
    let prompts = vec!["ab".repeat(100); 8];
    let echo = |n: u32, stream: bool| json!({"prompt": prompts, "n": n, "max_tokens": 1, "add_special_tokens": false, "echo": true, "stream": stream});
    let too_large = |answer: &Answer| (answer.status, answer.body.contains("answer_too_large"));
    let repeated = deployment.post("/v1/completions", &echo(16, false)).await;
    assert_eq!(too_large(&repeated), (400, true), "{}", repeated.body);
    let fits = deployment.post("/v1/completions", &echo(4, false)).await;
    assert_eq!(fits.status, 200, "{}", fits.body);
    assert_eq!(fits.json()["choices"][31]["text"], format!("{}a", prompts[7]));
    let ids = json!({"prompt": vec![vec![7; 200]; 8], "n": 16, "max_tokens": 1, "return_token_ids": true});
    let repeated = deployment.post("/v1/completions", &ids).await;
    assert_eq!(too_large(&repeated), (400, true), "{}", repeated.body);
    // A stream holds one repeated prompt at a time.
    let events = Events::open(&deployment, "/v1/completions", &echo(16, true)).await.all().await;
    let opened = events.iter().filter(|event| event.contains(&prompts[0])).count();
    assert_eq!(opened, 128);

    for (path, body) in [
        ("/tokenize", json!({"prompt": "ab".repeat(4_000)})),
        ("/tokenize", json!({"prompt": "ab".repeat(2_000), "return_token_strs": true})),
        ("/detokenize", json!({"tokens": vec![7; 25_000]})),
    ] {
        let answer = deployment.post(path, &body).await;
        assert_eq!(too_large(&answer), (400, true), "{path}: {}", answer.body);
    }
    deployment.stop().await;
}

#[tokio::test]
async fn ids_that_cannot_fit_are_refused_before_they_are_text() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.limits.answer_bytes_max = 2_000).await;
    let echo = |prompt: Value| json!({"prompt": prompt, "max_tokens": 1, "echo": true, "stream": true});
    let long = deployment.post("/v1/completions", &echo(json!([vec![7], vec![7; 300]]))).await;
    assert_eq!(long.status, 400);
    assert!(long.body.contains("your request has 300 input tokens"), "{}", long.body);
    let wide = deployment.post("/v1/completions", &echo(json!(vec![vec![7; 200]; 20]))).await;
    assert_eq!((wide.status, wide.json()["error"]["code"].as_str()), (400, Some("answer_too_large")));
    deployment.stop().await;
}

#[tokio::test]
async fn a_recommended_length_stays_within_what_one_request_may_ask_for() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
        std::fs::write(config.model_dir.join("generation_config.json"), r#"{"max_new_tokens": 200}"#).unwrap();
        config.limits.output_tokens_max = 300;
        config.limits.chat_max_tokens_default = 7;
    })
    .await;
    let tokens = |answer: &Answer| answer.json()["usage"]["completion_tokens"].as_u64().unwrap();
    let wide = deployment.post("/v1/completions", &json!({"prompt": ["a", "b", "c"], "n": 2})).await;
    assert_eq!(tokens(&wide), 300, "{}", wide.body);
    let one = deployment.post("/v1/completions", &json!({"prompt": "a"})).await;
    assert_eq!(tokens(&one), 200, "{}", one.body);
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "ignore_eos": true});
    let configured = deployment.post("/v1/chat/completions", &chat).await;
    assert_eq!(tokens(&configured), 7, "what the operator says stands before it: {}", configured.body);
    deployment.stop().await;
}

#[tokio::test]
async fn a_wide_request_runs_in_portions_and_lets_others_pass() {
    let (deployment, parrot) =
        Deployment::aggregated(Duration::from_millis(5), |config| config.limits.wide_choices_max = 4).await;
    let body = json!({"prompt": vec!["ab"; 12], "n": 2, "max_tokens": 20, "add_special_tokens": false});
    let (wide, most) = tokio::join!(deployment.post("/v1/completions", &body), async {
        until("it runs", || parrot.legs() > 0).await;
        let small = deployment.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1})).await;
        assert_eq!(small.status, 200);
        parrot.legs()
    });
    assert!((1..=2).contains(&most), "two prompts of two choices at a time: {most}");
    let answer = wide.json();
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 24);
    assert!(choices.iter().all(|choice| choice["text"] == "abababababababababab"), "{choices:?}");
    deployment.stop().await;
}

#[tokio::test]
async fn a_wide_request_whose_client_leaves_waits_no_longer() {
    let (deployment, parrot) =
        Deployment::aggregated(Duration::from_millis(5), |config| config.limits.wide_choices_max = 1).await;
    let body = json!({"prompt": vec!["ab"; 40], "max_tokens": 200}).to_string();
    let client = connect(&deployment, &(head(body.len(), "interactive") + &body)).await;
    until("it runs", || parrot.legs() > 0).await;
    drop(client);
    until("nothing runs", || parrot.legs() == 0).await;
    let next = deployment.post("/v1/completions", &json!({"prompt": ["x", "y"], "max_tokens": 1})).await;
    assert_eq!(next.status, 200, "{}", next.body);
    deployment.stop().await;
}

#[tokio::test]
async fn a_router_that_leaves_says_so_before_it_goes() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.lame_duck_ms = 1_000).await;
    let mut keeping = connect(&deployment, "").await;
    assert!(!ask(&mut keeping).await.to_lowercase().contains("connection: close"));
    deployment.ask_to_leave();
    let mut status = 200;
    while status == 200 {
        status = deployment.get("/ready").await.status;
    }
    assert_eq!(status, 503);
    let answer = ask(&mut keeping).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(timeout(PATIENCE, keeping.read(&mut [0; 8])).await.unwrap().unwrap(), 0, "and it is closed");
    deployment.stop().await;
}

#[tokio::test]
async fn pages_of_named_origins_may_use_the_api() {
    let (deployment, _parrot) =
        Deployment::aggregated(FAST, |config| config.allowed_origins.push("https://chat.example".to_owned())).await;
    let preflight = hyper::Request::options("/v1/chat/completions")
        .header("host", "localhost")
        .header("origin", "https://chat.example")
        .header("access-control-request-method", "POST")
        .body(String::new())
        .unwrap();
    let allowed = deployment.call(preflight).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, "https://chat.example"));
    assert!(allowed.header("access-control-allow-headers").contains("content-type"));
    let plain: Value = deployment.get("/version").await.json();
    assert_eq!(plain["role"], "router");
    deployment.stop().await;
}
