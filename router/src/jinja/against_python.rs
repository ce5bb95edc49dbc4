//! Compares one small template per construct with Python's output (tests/templates/constructs.py).

use std::sync::Arc;

use serde_json::Value as Json;

use super::{Error, Origin, Template, Value, meter};

/// Enough for every construct, and used up quickly even in a build without optimisation.
const STEPS_MAX: u64 = 300_000;

fn render(source: &str, variables: &Json, now_unix_s: u64) -> Result<String, Error> {
    let values = || {
        let map = variables.as_object().unwrap();
        map.iter().map(|(name, value)| (Arc::from(name.as_str()), Value::of_json(value, Origin::Given))).collect()
    };
    Template::compile(source)?.render(values, now_unix_s, STEPS_MAX).map(|rendered| rendered.text)
}

#[test]
fn every_construct_is_pythons() {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/templates/constructs.json");
    let whole: Json = serde_json::from_slice(&std::fs::read(place).unwrap()).unwrap();
    let now_unix_s = whole["now_unix_s"].as_u64().unwrap();
    let cases = whole["cases"].as_array().unwrap();
    assert!(cases.len() > 700);
    let mut wrong = Vec::new();
    for case in cases {
        let source = case["template"].as_str().unwrap();
        let ours = render(source, &whole["variables"], now_unix_s);
        let alike = match &ours {
            Ok(text) => case["text"] == text.as_str(),
            Err(Error::Raised(message)) => case["refused"] == message.as_str(),
            // Python's messages differ; both must fail.
            Err(_) => case["failed"].is_string(),
        };
        if !alike {
            wrong.push(format!("{source}\n    Python {case}\n    ours   {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn nothing_is_left_of_a_run() {
    let sources = [
        "{% macro m() %}{{ n }}{% endmacro %}{% set ns = namespace(m=m) %}{% set ns.self = ns %}{{ m() }}",
        "{% for a in range(9) %}{% macro m() %}{{ m }}{% endmacro %}{{ loop.changed(loop) }}{{ m() }}{% endfor %}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}{{ {'a': [1, (2, 3)]} | tojson }}",
    ];
    for source in sources {
        let template = Template::compile(source).unwrap();
        let left = std::thread::spawn(move || {
            let _run = meter::begin(10_000, Box::new(|| true));
            super::machine::Machine::new(Vec::new(), 0, 10_000).run(&template.body).map(drop).unwrap();
            meter::live_bytes()
        });
        assert_eq!(left.join().unwrap(), 0, "{source}");
    }
}

#[test]
fn a_template_is_bounded_in_steps_memory_and_depth() {
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    let hostile = [
        loops.to_owned(),
        format!("{{% macro spin() %}}{loops}{{% endmacro %}}{{{{ spin() }}}}"),
        "{% set n = namespace(s='x' * 1000000) %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}".into(),
        "{% set n = namespace(l=[0]) %}{% for a in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}".into(),
        "{% set n = namespace(l=[]) %}{% for a in range(99999) %}{% set n.l = [n.l] %}{% endfor %}".into(),
        "{% set n = namespace(l=0) %}{% for a in range(9999) %}{% set n.l = {'a': n.l} %}{% endfor %}".into(),
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}".into(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into(),
        "{{ 'x' * 99999999999 }}".into(),
        "{{ [0] * 99999999999 }}".into(),
        "{{ 'x'.center(99999999999) }}".into(),
        "{{ '%99999999999d' % 1 }}".into(),
        "{{ '{:>99999999999}'.format(1) }}".into(),
        "{{ 'x' | indent(99999999999) }}".into(),
        "{{ ('x' * 1000000).replace('', 'y' * 1000) }}".into(),
        "{{ (',' * 3000000).split(',') }}".into(),
        "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}".into(),
        "{% set s = 'x' * 9999999 %}{% for a in range(99999) %}{% if s == s ~ 'y' %}{% endif %}{% endfor %}".into(),
    ];
    for source in hostile {
        let error = render(&source, &serde_json::json!({}), 0).unwrap_err();
        assert!(matches!(error, Error::Endless(_) | Error::Large(_) | Error::Deep(_)), "{source}: {error}");
    }
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(9999), ")".repeat(9999));
    assert!(matches!(Template::compile(&deep), Err(Error::Syntax { .. })));
}

#[test]
fn numbers_at_the_edge_are_errors() {
    let most = i128::MAX;
    let sources = [
        format!("{{{{ {most} + 1 }}}}"),
        format!("{{{{ -{most} - 2 }}}}"),
        format!("{{{{ 'abc'[::-{most} - 1] }}}}"),
        format!("{{{{ range(0, 5, -{most} - 1) | list }}}}"),
        format!("{{{{ {most} in range(-{most}, -{most} + 5) }}}}"),
        format!("{{{{ (-{most} - 1) // -1 }}}}"),
        "{{ '{a[0]é}'.format(a=[1]) }}".to_owned(),
        format!("{{{{ 'a'.find('a', -{most} - 1, {most}) }}}}"),
        format!("{{{{ [1].index(1, -{most} - 1) }}}}"),
        format!("{{{{ 2.5 | round({most}) }}}}{{{{ 2.5 | round(-{most}) }}}}"),
    ];
    for source in sources {
        let done = render(&source, &serde_json::json!({}), 0);
        assert!(!matches!(&done, Err(Error::Fault { message, .. }) if message.contains("bug")), "{source}: {done:?}");
    }
}
