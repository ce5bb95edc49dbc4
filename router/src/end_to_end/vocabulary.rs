//! A tokenizer that knows more tokens than its model.

use sched::Role;
use serde_json::json;

use super::FAST;
use super::deployment::Deployment;
use super::parrot::Parrot;
use crate::Workers;

#[tokio::test]
async fn text_with_a_token_that_the_model_lacks_is_refused_by_its_id() {
    let small = r#"{"model_type": "llama", "vocab_size": 268, "max_position_embeddings": 256}"#;
    let parrot = Parrot::start(Role::Aggregated, 1, FAST).await;
    parrot.knows(268);
    let workers = Workers { prefill: vec![], decode: vec![parrot.address.clone()] };
    let deployment = Deployment::start(workers, |config| {
        std::fs::write(config.model_dir.join("config.json"), small).unwrap();
    })
    .await;
    let user = |text: &str| json!([{"role": "user", "content": text}]);
    let refused = [
        ("/v1/completions", json!({"prompt": "hi<|user|>"})),
        ("/v1/completions", json!({"prompt": ["fine", "hi<|user|>"]})),
        ("/v1/completions", json!({"prompt": [268]})),
        ("/tokenize", json!({"prompt": "hi<|user|>"})),
    ];
    for (path, body) in refused {
        let answer = deployment.post(path, &body).await;
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.body);
        let error = &answer.json()["error"];
        assert!(error["message"].as_str().unwrap().contains("268"), "{path} {body}: {error}");
    }
    // In a message the token's spelling is text.
    for text in ["hi", "hi<|user|>"] {
        let fine = deployment.post("/v1/chat/completions", &json!({"messages": user(text)})).await;
        assert_eq!(fine.status, 200, "{}", fine.body);
        let tokens = deployment.post("/tokenize", &json!({"messages": user(text)})).await;
        assert!(!tokens.json()["tokens"].as_array().unwrap().contains(&json!(268)), "{}", tokens.body);
    }
    deployment.stop().await;
}
