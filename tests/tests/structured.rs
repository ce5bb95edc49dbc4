//! Structured answers through the HTTP API: every text follows its grammar, and both modes give the same one.

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::Deployment;
use baton_tests::http;
use serde_json::{Value, json};

const MODES: [&str; 2] = ["disaggregated", "aggregated"];

#[test]
fn answers_follow_their_grammar_and_modes_agree() -> Result<()> {
    let mut answers = Vec::new();
    for mode in MODES {
        let mut deployment = Deployment::start(&["--mode", mode])?;
        let said = requests().iter().map(|(body, check)| answer(&deployment, body, *check)).collect::<Result<Vec<_>>>();
        answers.push(said.with_context(|| format!("in mode {mode}; log:\n{}", deployment.log()))?);
        refusals(&deployment)?;
        assert!(deployment.stop()?.success(), "{mode}: Ctrl-C is a clean end:\n{}", deployment.log());
    }
    assert_eq!(answers[0], answers[1], "tokens and log-probabilities");
    Ok(())
}

type Check = fn(&str) -> Result<()>;

/// Requests whose texts must end by their grammar, and what holds for the texts.
fn requests() -> Vec<(Value, Check)> {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age", "kind"],
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "kind": {"enum": ["cat", "dog"]},
        },
    });
    let person: Check = |text| {
        let value: Value = serde_json::from_str(text)?;
        let kind = value["kind"].as_str().context("kind")?;
        ensure!(kind == "cat" || kind == "dog", "{text}");
        ensure!(value["age"].as_f64().is_some_and(|age| (0.0..=130.0).contains(&age)), "{text}");
        ensure!(value.as_object().is_some_and(|map| map.len() == 3), "{text}");
        Ok(())
    };
    let chat = |more: Value| {
        let mut body = json!({
            "messages": [{"role": "user", "content": "Describe an animal."}], "max_tokens": 400, "seed": 5,
            "logprobs": true, "top_logprobs": 2,
        });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body
    };
    let format = json!({"type": "json_schema", "json_schema": {"name": "animal", "strict": true, "schema": schema}});
    vec![
        (chat(json!({"response_format": format})), person),
        (chat(json!({"response_format": format, "n": 3, "temperature": 1.5})), person),
        (chat(json!({"response_format": format, "ignore_eos": true, "temperature": 0})), person),
        (chat(json!({"structured_outputs": {"regex": "[A-Z][a-z]{3}-\\d{2}"}})), |text| {
            ensure!(text.len() == 7 && text.as_bytes()[4] == b'-', "{text}");
            Ok(())
        }),
        (chat(json!({"guided_choice": ["yes", "no", "perhaps …"]})), |text| {
            ensure!(["yes", "no", "perhaps …"].contains(&text), "{text}");
            Ok(())
        }),
        (chat(json!({"guided_grammar": "root ::= pair pair pair\npair ::= [a-c] \"=\" [0-9] \";\""})), |text| {
            ensure!(text.len() == 12 && text.ends_with(';'), "{text}");
            Ok(())
        }),
    ]
}

/// Returns the choices, streamed as well as whole, after checking their texts.
fn answer(deployment: &Deployment, body: &Value, check: Check) -> Result<Value> {
    let whole = http::post(deployment.address, "/v1/chat/completions", body)?;
    ensure!(whole.status == 200, "{body}: {}", whole.body);
    let choices = whole.json()?["choices"].as_array().context("choices")?.clone();
    let mut streamed = vec![String::new(); choices.len()];
    let mut body = body.clone();
    body["stream"] = json!(true);
    for event in http::stream(deployment.address, "/v1/chat/completions", &body)?.collect()? {
        for choice in event["choices"].as_array().context("choices")? {
            let index = choice["index"].as_u64().context("index")? as usize;
            streamed[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        }
    }
    for (choice, streamed) in choices.iter().zip(&streamed) {
        let text = choice["message"]["content"].as_str().context("content")?;
        assert_eq!((text, &choice["finish_reason"]), (streamed.as_str(), &json!("stop")), "{body}");
        check(text).with_context(|| text.to_owned())?;
    }
    Ok(json!(choices))
}

fn refusals(deployment: &Deployment) -> Result<()> {
    for (more, param) in [
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"strict": true, "schema": {"type": "array", "uniqueItems": true}}}}),
            "response_format",
        ),
        (json!({"guided_regex": "(("}), "guided_regex"),
        (json!({"guided_grammar": "start: ".to_owned() + &"(".repeat(200_000)}), "guided_grammar"),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 4});
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        let answer = http::post(deployment.address, "/v1/chat/completions", &body)?;
        assert_eq!(answer.status, 400, "{param}: {}", answer.body);
        assert_eq!(answer.json()?["error"]["param"], param);
    }
    Ok(())
}
