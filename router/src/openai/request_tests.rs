//! Tests of request bodies: their meaning, and the errors for those refused.

use expect_test::{Expect, expect};
use sched::{SamplingParams, TokenId};
use serde_json::{Value, json};

use super::*;
use crate::text::{
    ControlReading, ControlTokens, Length, Marks, ModelText, SamplingDefaults, SpecialText, ToolCalls, samples,
};

pub(super) fn limits() -> Limits {
    Limits { n_max: 4, prompts_max: 3, stop_max: 4, stop_bytes_max: 16, vocab_size: 300 }
}

fn chat(body: &Value) -> Result<ChatRequest, ApiError> {
    let mut whole = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (key, value) in body.as_object().unwrap() {
        whole[key] = value.clone();
    }
    ChatRequest::parse(whole.to_string().as_bytes(), &limits())
}

fn completion(body: &Value) -> Result<CompletionRequest, ApiError> {
    let mut whole = json!({"prompt": "hi"});
    for (key, value) in body.as_object().unwrap() {
        whole[key] = value.clone();
    }
    CompletionRequest::parse(whole.to_string().as_bytes(), &limits())
}

/// Compares the refusals, one line per body: the field at fault and the message.
fn check_refused(bodies: &[Value], parse: impl Fn(&Value) -> Option<ApiError>, expected: &Expect) {
    let mut lines = String::new();
    for body in bodies {
        let error = parse(body).unwrap_or_else(|| panic!("{body} was accepted"));
        assert_eq!(error.status, 400);
        let code = error.code.map(|code| format!(" ({code})")).unwrap_or_default();
        lines.push_str(&format!("{}: {}{code}\n", error.param.as_deref().unwrap_or("-"), error.message));
    }
    expected.assert_eq(&lines);
}

#[test]
fn wrong_bodies() {
    let parse = |body: &str| ChatRequest::parse(body.as_bytes(), &limits()).unwrap_err().message;
    assert_eq!(parse("{"), "the request body is not valid JSON: EOF while parsing an object at line 1 column 1");
    assert_eq!(parse("[]"), "the request body must be a JSON object, but is a list of 0");
    assert_eq!(parse("{}"), "messages is missing");
    assert_eq!(ChatRequest::parse(b"\xff", &limits()).unwrap_err().status, 400);
}

#[test]
fn wrong_messages() {
    let bodies = [
        json!({"messages": "hi"}),
        json!({"messages": []}),
        json!({"messages": ["hi"]}),
        json!({"messages": [{"content": "hi"}]}),
        json!({"messages": [{"role": "boss", "content": "hi"}]}),
        json!({"messages": [{"role": "user", "content": "hi"}, {"role": "user"}]}),
        json!({"messages": [{"role": "user", "content": 7}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        json!({"messages": [{"role": "function", "content": "7"}]}),
        json!({"messages": [{"role": "user", "content": "hi", "name": 3}]}),
    ];
    check_refused(
        &bodies,
        |body| chat(body).err(),
        &expect![[r#"
            messages: messages must be a list, but is the string "hi"
            messages: messages must not be empty
            messages[0]: messages[0] must be an object, but is the string "hi"
            messages[0].role: messages[0].role is missing
            messages[0].role: messages[0].role must be one of system, developer, user, assistant, tool, but is the string "boss"
            messages[1].content: messages[1].content is missing
            messages[0].content: messages[0].content must be a string or a list of text parts, but is 7
            messages[0].content[0].type: messages[0].content[0].type must be "text", the only kind that this server supports, but is the string "image_url" (unsupported_value)
            messages[0].content[0].text: messages[0].content[0].text is missing
            messages[0].role: messages[0].role: function is not supported by this server; send the role tool (unsupported_value)
            messages[0].name: messages[0].name must be a string, but is 3
        "#]],
    );
}

#[test]
fn values_out_of_range() {
    let bodies = [
        json!({"model": 7}),
        json!({"max_tokens": 0}),
        json!({"max_tokens": -1}),
        json!({"max_tokens": 1.5}),
        json!({"max_completion_tokens": "5"}),
        json!({"min_tokens": -3}),
        json!({"temperature": 2.5}),
        json!({"temperature": "hot"}),
        json!({"top_p": 0}),
        json!({"top_p": -1e-300}),
        json!({"top_p": 1.1}),
        json!({"top_k": -2}),
        json!({"min_p": -0.1}),
        json!({"repetition_penalty": 0}),
        json!({"presence_penalty": 3}),
        json!({"frequency_penalty": -2.1}),
        json!({"seed": 1.5}),
        json!({"n": 0}),
        json!({"n": 5}),
        json!({"stop": 3}),
        json!({"stop": ["a", 3]}),
        json!({"stop": ""}),
        json!({"stop": ["a", "b", "c", "d", "e"]}),
        json!({"stop": "01234567890123456"}),
        json!({"stop_token_ids": [300]}),
        json!({"ignore_eos": 1}),
        json!({"stream": "yes"}),
        json!({"stream_options": {"include_usage": true}}),
        json!({"stream": true, "stream_options": {"include_usage": 1}}),
        json!({"logprobs": 1}),
        json!({"top_logprobs": 1}),
        json!({"logprobs": true, "top_logprobs": 21}),
        json!({"logit_bias": {"x": 1}}),
        json!({"logit_bias": {"300": 1}}),
        json!({"logit_bias": {"1": 1, "01": 2}}),
        json!({"logit_bias": {"+1": 1}}),
        json!({"logit_bias": {"3": 101}}),
        json!({"logit_bias": [3]}),
        json!({"slo_class": 1}),
        json!({"allowed_token_ids": []}),
        json!({"allowed_token_ids": [1, 300]}),
        json!({"bad_words": "x"}),
        json!({"bad_words": ["x", ""]}),
        json!({"truncate_prompt_tokens": 0}),
        json!({"truncate_prompt_tokens": -2}),
        json!({"service_tier": "scale"}),
        json!({"include_stop_str_in_output": 1}),
        json!({"continue_final_message": true, "add_generation_prompt": true}),
        json!({"return_token_ids": "y"}),
        json!({"chat_template_kwargs": []}),
        json!({"chat_template_kwargs": {"enable_thinking": false, "messages": []}}),
        json!({"chat_template_kwargs": {"add_generation_prompt": false}}),
        json!({"chat_template_kwargs": {"bos_token": ""}}),
        json!({"chat_template_kwargs": {"eos_token": null}}),
    ];
    check_refused(
        &bodies,
        |body| chat(body).err(),
        &expect![[r#"
            model: model must be a string, but is 7
            max_tokens: max_tokens must be an integer from 1 to 4294967295, but is 0
            max_tokens: max_tokens must be an integer from 1 to 4294967295, but is -1
            max_tokens: max_tokens must be an integer from 1 to 4294967295, but is 1.5
            max_completion_tokens: max_completion_tokens must be an integer from 1 to 4294967295, but is the string "5"
            min_tokens: min_tokens must be an integer from 0 to 4294967295, but is -3
            temperature: temperature must be a number from 0 to 2, but is 2.5
            temperature: temperature must be a number from 0 to 2, but is the string "hot"
            top_p: top_p must be above 0
            top_p: top_p must be a number from 0 to 1, but is -1e-300
            top_p: top_p must be a number from 0 to 1, but is 1.1
            top_k: top_k must be an integer from -1 to 4294967295, but is -2
            min_p: min_p must be a number from 0 to 1, but is -0.1
            repetition_penalty: repetition_penalty must be a number from 0.01 to 100, but is 0
            presence_penalty: presence_penalty must be a number from -2 to 2, but is 3
            frequency_penalty: frequency_penalty must be a number from -2 to 2, but is -2.1
            seed: seed must be an integer of 64 bits, but is 1.5
            n: n must be an integer from 1 to 4, but is 0
            n: n must be an integer from 1 to 4, but is 5
            stop: stop must be a string or a list of strings, but is 3
            stop[1]: stop[1] must be a string, but is 3
            stop: stop must not contain an empty string
            stop: stop may have 4 strings at most, but has 5
            stop: a stop string may have 16 bytes at most, but has 17
            stop_token_ids[0]: stop_token_ids[0] must be an integer from 0 to 299, but is 300
            ignore_eos: ignore_eos must be true or false, but is 1
            stream: stream must be true or false, but is the string "yes"
            stream_options: stream_options needs stream to be true
            stream_options.include_usage: stream_options.include_usage must be true or false, but is 1
            logprobs: logprobs must be true or false, but is 1
            top_logprobs: top_logprobs needs logprobs to be true
            top_logprobs: top_logprobs must be an integer from 0 to 20, but is 21
            logit_bias: logit_bias key "x" must be a token id from 0 to 299
            logit_bias: logit_bias key "300" must be a token id from 0 to 299
            logit_bias: logit_bias key "01" must be a token id from 0 to 299
            logit_bias: logit_bias key "+1" must be a token id from 0 to 299
            logit_bias.3: logit_bias.3 must be a number from -100 to 100, but is 101
            logit_bias: logit_bias must be an object, but is a list of 1
            slo_class: slo_class must be a string, but is 1
            allowed_token_ids: allowed_token_ids must not be empty
            allowed_token_ids[1]: allowed_token_ids[1] must be an integer from 0 to 299, but is 300
            bad_words: bad_words must be a list, but is the string "x"
            bad_words[1]: bad_words[1] must not be empty
            truncate_prompt_tokens: truncate_prompt_tokens must be -1 or above 0
            truncate_prompt_tokens: truncate_prompt_tokens must be an integer from -1 to 4294967295, but is -2
            service_tier: service_tier must be one of auto, default, flex, priority, but is the string "scale"
            include_stop_str_in_output: include_stop_str_in_output must be true or false, but is 1
            continue_final_message: continue_final_message and add_generation_prompt must not both be true
            return_token_ids: return_token_ids must be true or false, but is the string "y"
            chat_template_kwargs: chat_template_kwargs must be an object, but is a list of 0
            chat_template_kwargs: chat_template_kwargs must not have "messages", which the server sets itself
            chat_template_kwargs: chat_template_kwargs must not have "add_generation_prompt", which the server sets itself
            chat_template_kwargs: chat_template_kwargs must not have "bos_token", which the server sets itself
            chat_template_kwargs: chat_template_kwargs must not have "eos_token", which the server sets itself
        "#]],
    );
}

#[test]
fn features_that_are_not_there() {
    let bodies = [
        json!({"functions": [{}]}),
        json!({"function_call": "auto"}),
        json!({"modalities": ["text", "audio"]}),
        json!({"audio": {}}),
        json!({"ebnf": "root ::= x"}),
        json!({"chat_template": "x"}),
        json!({"use_beam_search": true}),
    ];
    check_refused(
        &bodies,
        |body| chat(body).err(),
        &expect![[r#"
            functions: functions is not supported by this server; send tools (unsupported_parameter)
            function_call: function_call is not supported by this server; send tool_choice (unsupported_parameter)
            modalities: modalities is not supported by this server (unsupported_parameter)
            audio: audio is not supported by this server (unsupported_parameter)
            ebnf: ebnf is not supported by this server; send response_format or structured_outputs (unsupported_parameter)
            chat_template: chat_template is not supported by this server (unsupported_parameter)
            use_beam_search: use_beam_search is not supported by this server (unsupported_parameter)
        "#]],
    );
    let bodies = [
        json!({"n": 2, "best_of": 1}),
        json!({"best_of": 2, "stream": true}),
        json!({"best_of": 5}),
        json!({"suffix": "x"}),
        json!({"logprobs": 21}),
        json!({"prompt": null}),
        json!({"prompt": 3}),
        json!({"prompt": []}),
        json!({"prompt": ["a", 3]}),
        json!({"prompt": [3, "a"]}),
        json!({"prompt": [[]]}),
        json!({"prompt": [300]}),
        json!({"prompt": [[1, -1]]}),
        json!({"prompt": ["a", "b", "c", "d"]}),
    ];
    check_refused(
        &bodies,
        |body| completion(body).err(),
        &expect![[r#"
            best_of: best_of (1) must not be below n (2)
            best_of: a best_of above n together with stream is not supported by this server (unsupported_parameter)
            best_of: best_of must be an integer from 1 to 4, but is 5
            suffix: suffix is not supported by this server (unsupported_parameter)
            logprobs: logprobs must be an integer from 0 to 20, but is 21
            prompt: prompt is missing
            prompt: prompt must be a string or a list, but is 3
            prompt: prompt must not be empty
            prompt[1]: prompt[1] must be a string or a list of token ids, but is 3
            prompt[1]: prompt[1] must be an integer from 0 to 299, but is the string "a"
            prompt[0]: prompt[0] must not be empty
            prompt[0]: prompt[0] must be an integer from 0 to 299, but is 300
            prompt[0][1]: prompt[0][1] must be an integer from 0 to 299, but is -1
            prompt: prompt may have 3 prompts at most, but has 4
        "#]],
    );
}

#[test]
fn nulls_defaults_and_unknown_fields_change_nothing() {
    let plain = chat(&json!({})).unwrap();
    let names = [
        "max_tokens",
        "max_completion_tokens",
        "min_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "stop_token_ids",
        "n",
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "tools",
        "tool_choice",
        "response_format",
        "user",
        "slo_class",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "ignore_eos",
        "return_token_ids",
        "prompt_logprobs",
        "modalities",
        "audio",
    ];
    let nulls: serde_json::Map<String, Value> = names.iter().map(|&name| (name.to_owned(), Value::Null)).collect();
    assert_eq!(chat(&Value::Object(nulls)).unwrap(), plain);
    let harmless = json!({
        "stream": false, "tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "user": "me",
        "priority": 3, "n": 1, "frequency_penalty": 0, "metadata": {"a": 1}, "modalities": ["text"],
        "from_the_future": {"x": [1]}, "logit_bias": {}, "stop": [], "parallel_tool_calls": true, "store": false,
    });
    assert_eq!(chat(&harmless).unwrap(), plain);
    let tool = json!({"type": "function", "function": {"name": "f"}});
    let choosing_no_tool = json!({"tools": [tool], "tool_choice": "none"});
    assert_eq!(chat(&choosing_no_tool).unwrap(), plain);
}

#[test]
fn messages_are_typed() {
    let request = chat(&json!({"messages": [
        {"role": "developer", "content": "brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
        {"role": "assistant", "content": null, "tool_calls": [], "refusal": null},
    ]}))
    .unwrap();
    let shown: Vec<String> = request
        .conversation
        .messages
        .iter()
        .map(|message| format!("{} {:?} {:?}", message.role.name(), message.content, message.name))
        .collect();
    let expected =
        [r#"developer Text("brief") None"#, r#"user Parts(["a", "b"]) Some("ann")"#, r#"assistant Text("") None"#];
    assert_eq!(shown, expected);
}

#[test]
fn the_newer_name_of_max_tokens_wins() {
    assert_eq!(chat(&json!({"max_tokens": 3})).unwrap().generation.max_tokens, Some(3));
    let both = json!({"max_tokens": 3, "max_completion_tokens": 5});
    assert_eq!(chat(&both).unwrap().generation.max_tokens, Some(5));
}

#[test]
fn four_forms_of_prompt() {
    let prompts = |prompt: Value| completion(&json!({"prompt": prompt})).unwrap().prompts;
    let text = |text: &str| Prompt::Text(text.to_owned());
    let ids = |ids: &[u32]| Prompt::Tokens(ids.iter().copied().map(TokenId).collect());
    assert_eq!(prompts(json!("a")), [text("a")]);
    assert_eq!(prompts(json!(["a", "b"])), [text("a"), text("b")]);
    assert_eq!(prompts(json!([1, 299])), [ids(&[1, 299])]);
    assert_eq!(prompts(json!([[1], [2, 3]])), [ids(&[1]), ids(&[2, 3])]);
}

#[test]
fn logprobs_in_both_forms() {
    assert_eq!(chat(&json!({"logprobs": true})).unwrap().generation.logprobs, Some(0));
    assert_eq!(chat(&json!({"logprobs": true, "top_logprobs": 20})).unwrap().generation.logprobs, Some(20));
    assert_eq!(completion(&json!({"logprobs": 0})).unwrap().generation.logprobs, Some(0));
    assert_eq!(completion(&json!({"logprobs": 5})).unwrap().generation.logprobs, Some(5));
}

#[test]
fn seeds_are_64_bits_of_either_sign() {
    let seed = |seed: Value| chat(&json!({"seed": seed})).unwrap().generation.seed;
    assert_eq!(seed(json!(7)), Some(7));
    assert_eq!(seed(json!(-1)), Some(u64::MAX));
    assert_eq!(seed(json!(u64::MAX)), Some(u64::MAX));
}

#[test]
fn logit_bias_is_sorted_and_the_last_of_a_kind_wins() {
    let body = r#"{"prompt": "a", "logit_bias": {"9": 1, "3": -100, "9": 2.5}}"#;
    let bias = CompletionRequest::parse(body.as_bytes(), &limits()).unwrap().generation.logit_bias;
    assert_eq!(bias, [(TokenId(3), -100.0), (TokenId(9), 2.5)]);
}

fn model(defaults: SamplingDefaults) -> ModelText {
    let tokenizer = samples::byte_level();
    ModelText {
        control: ControlTokens::of(&tokenizer, &std::collections::BTreeSet::new()).unwrap(),
        control_in_messages: ControlReading::Text,
        control_in_prompts: ControlReading::Token,
        tokenizer,
        template: None,
        tool_template: None,
        tool_calls: ToolCalls::Unknown,
        thought_tags: None,
        marks: Marks::default(),
        end_tokens: vec![TokenId(5), TokenId(9)],
        vocab_size: 300,
        context_tokens: 64,
        defaults,
        grammars: Default::default(),
    }
}

/// No length but the recommendation of the model's authors.
const UNNAMED: UnnamedLength = UnnamedLength { configured: None, default: None, share: u32::MAX };

fn resolve(body: &Value, prompt_tokens: usize) -> Result<SamplingParams, ApiError> {
    let recommended = SamplingDefaults { temperature: Some(0.5), top_k: Some(40), ..SamplingDefaults::default() };
    chat(body)?.generation.resolve(&model(recommended), 64, prompt_tokens, UNNAMED, 77)
}

#[test]
fn what_a_client_leaves_open_comes_from_the_model_then_from_the_api() {
    let open = resolve(&json!({}), 10).unwrap();
    let expected = SamplingParams {
        max_tokens: 54,
        temperature: 0.5,
        top_k: 40,
        seed: 77,
        stop_tokens: vec![TokenId(5), TokenId(9)],
        ..SamplingParams::default()
    };
    assert_eq!(open, expected);

    let said = json!({"temperature": 1e-9, "top_k": -1, "seed": 3, "max_tokens": 7, "stop_token_ids": [9, 2]});
    let expected = SamplingParams {
        max_tokens: 7,
        temperature: 0.0,
        top_k: 0,
        seed: 3,
        stop_tokens: vec![TokenId(2), TokenId(5), TokenId(9)],
        ..SamplingParams::default()
    };
    assert_eq!(resolve(&said, 10).unwrap(), expected);

    // No number of 32 bits is so small, but it is above 0.
    assert_eq!(resolve(&json!({"top_p": 1e-300}), 10).unwrap().top_p, f32::MIN_POSITIVE);

    let endless = resolve(&json!({"ignore_eos": true, "stop_token_ids": [9]}), 10).unwrap();
    assert_eq!(endless.stop_tokens, [TokenId(9)]);
}

#[test]
fn recommended_lengths_stand_for_those_that_a_client_leaves_open() {
    let recommended =
        |max_tokens, min_tokens| SamplingDefaults { max_tokens, min_tokens, ..SamplingDefaults::default() };
    let lengths = |defaults: SamplingDefaults, body: Value, prompt: usize, unnamed: UnnamedLength| {
        let resolved = chat(&body).unwrap().generation.resolve(&model(defaults), 64, prompt, unnamed, 77);
        resolved.map(|params| (params.max_tokens, params.min_tokens)).map_err(|error| error.message)
    };
    let answer = |most, least| recommended(Some(Length::Answer(most)), Some(Length::Answer(least)));
    assert_eq!(lengths(answer(20, 3), json!({}), 10, UNNAMED), Ok((20, 3)));
    let api = UnnamedLength { default: Some(16), ..UNNAMED };
    assert_eq!(lengths(answer(20, 3), json!({}), 10, api), Ok((20, 3)), "before the API's default");
    assert_eq!(lengths(recommended(None, None), json!({}), 10, api), Ok((16, 0)));
    let operator = UnnamedLength { configured: Some(7), ..api };
    assert_eq!(lengths(answer(20, 3), json!({}), 10, operator), Ok((7, 3)), "the operator's word stands before it");
    for unnamed in [UnnamedLength { share: 5, ..UNNAMED }, UnnamedLength { share: 5, ..operator }] {
        assert_eq!(lengths(answer(20, 3), json!({}), 10, unnamed), Ok((5, 3)), "what one request may ask for");
        assert_eq!(lengths(answer(20, 3), json!({"max_tokens": 9}), 10, unnamed), Ok((9, 3)), "is checked elsewhere");
    }
    assert_eq!(lengths(answer(900, 3), json!({}), 10, UNNAMED), Ok((54, 3)), "at most what the context has left");
    assert_eq!(lengths(answer(20, 3), json!({"max_tokens": 2}), 10, UNNAMED), Ok((2, 2)), "the client's word counts");
    assert_eq!(lengths(answer(20, 3), json!({"max_tokens": 2, "min_tokens": 1}), 10, UNNAMED), Ok((2, 1)));
    let all = || recommended(Some(Length::All(40)), Some(Length::All(15)));
    assert_eq!(lengths(all(), json!({}), 10, UNNAMED), Ok((30, 5)));
    assert_eq!(lengths(all(), json!({}), 30, UNNAMED), Ok((10, 0)));
    let said = lengths(all(), json!({}), 40, UNNAMED).unwrap_err();
    assert!(said.starts_with("max_length of this model's generation_config.json leaves nothing"), "{said}");
    assert_eq!(lengths(all(), json!({"max_tokens": 5}), 40, UNNAMED), Ok((5, 0)));
}

#[test]
fn prompt_and_answer_must_fit_the_context() {
    assert_eq!(resolve(&json!({"max_tokens": 54}), 10).unwrap().max_tokens, 54);
    assert_eq!(resolve(&json!({}), 63).unwrap().max_tokens, 1);
    let refused = [(json!({}), 64), (json!({"max_tokens": 1}), 1000), (json!({"max_tokens": 55}), 10)];
    for (body, prompt_tokens) in refused {
        let error = resolve(&body, prompt_tokens).unwrap_err();
        assert_eq!((error.status, error.code), (400, Some("context_length_exceeded")));
        assert!(error.message.contains("This model's maximum context length is 64 tokens"), "{}", error.message);
    }
    let error = resolve(&json!({"max_tokens": 5, "min_tokens": 6}), 10).unwrap_err();
    assert_eq!(error.message, "min_tokens (6) must not be above max_tokens (5)");
    let mut cut = chat(&json!({"max_tokens": 60, "min_tokens": 58})).unwrap().generation;
    cut.beyond_context = BeyondContext::Cut;
    let cut = cut.resolve(&model(SamplingDefaults::default()), 64, 10, UNNAMED, 77).unwrap();
    assert_eq!((cut.max_tokens, cut.min_tokens), (54, 54), "an API that cuts answers cuts both");
}

#[test]
fn control_tokens_show_on_request() {
    let request = chat(&json!({"skip_special_tokens": false})).unwrap();
    assert_eq!(request.generation.special_text, SpecialText::Show);
}
