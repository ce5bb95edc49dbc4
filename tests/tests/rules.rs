//! The rules of the house that a machine can check: layers, where unsafe may live, file headers and sizes.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use baton_tests::repository;

/// Layer of each crate; a crate may import crates of lower layers only, never sideways.
const LAYERS: [(&str, u8); 17] = [
    ("sched", 0),
    ("kernels", 0),
    ("model-files", 0),
    ("kv-transfer", 1),
    ("vocabulary", 1),
    ("engine", 2),
    ("planner", 2),
    ("client", 2),
    ("node", 2),
    ("proto", 2),
    ("worker", 3),
    ("router", 4),
    ("prefill-server", 4),
    ("decode-server", 4),
    ("baton", 5),
    ("gpu-check", 5),
    ("baton-tests", 5),
];

/// Direct dependencies that a crate must not have, as it must not know their subject.
const MUST_NOT_KNOW: [(&str, &[&str]); 13] = [
    ("sched", &["tokio", "serde_json", "rand", "axum", "tonic"]),
    ("model-files", &["sched", "kernels", "tokenizers", "tokio"]),
    ("vocabulary", &["kernels", "kv-transfer", "tokio", "axum", "tonic"]),
    ("kernels", &["sched", "tokio", "serde_json"]),
    ("kv-transfer", &["axum", "hyper", "tonic", "serde_json"]),
    ("engine", &["axum", "hyper", "tonic", "tokio"]),
    ("planner", &["tokio", "axum", "tonic"]),
    ("client", &["kernels", "model-files", "kv-transfer", "axum", "tonic", "anyhow", "clap"]),
    ("worker", &["axum", "hyper", "tonic", "tokenizers", "router"]),
    ("prefill-server", &["tokenizers", "minijinja", "router"]),
    ("decode-server", &["tokenizers", "minijinja", "router"]),
    ("router", &["kernels", "engine", "kv-transfer", "half", "worker"]),
    ("gpu-check", &["sched", "model-files", "engine", "tokio"]),
];

const UNSAFE: [&str; 3] = ["kernels", "kv-transfer", "gpu-check"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn imports_point_down_only() -> Result<()> {
    let layers: BTreeMap<&str, u8> = LAYERS.into_iter().collect();
    let metadata = repository::metadata()?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    assert_eq!(packages.len(), LAYERS.len(), "a crate was added or removed: update the layer table");
    let mut violations = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("package without a name")?;
        let own = *layers.get(name).with_context(|| format!("{name} is not in the layer table"))?;
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            let imported = dependency["name"].as_str().context("dependency without a name")?;
            // Tests may import any crate below the top; the rule is for shipped code.
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            if let Some(layer) = layers.get(imported)
                && *layer >= own
            {
                violations.push(format!("{name} imports {imported}"));
            }
        }
    }
    assert!(violations.is_empty(), "imports that do not point down: {violations:?}");
    Ok(())
}

#[test]
fn crates_do_not_know_what_they_must_not() -> Result<()> {
    let metadata = repository::metadata()?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    for (name, banned) in MUST_NOT_KNOW {
        let package = packages.iter().find(|p| p["name"] == name).with_context(|| format!("no crate {name}"))?;
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            let imported = dependency["name"].as_str().unwrap_or_default();
            let shipped = dependency["kind"].as_str() != Some("dev");
            assert!(!(shipped && banned.contains(&imported)), "{name} must not know {imported}");
        }
    }
    Ok(())
}

#[test]
fn every_crate_says_what_it_is_for() -> Result<()> {
    for package in repository::metadata()?["packages"].as_array().context("no packages")? {
        assert!(
            package["description"].as_str().is_some_and(|d| d.len() > 20),
            "{} has no purpose line",
            package["name"]
        );
    }
    Ok(())
}

#[test]
fn unsafe_lives_in_its_crates_only() -> Result<()> {
    for (file, text) in repository::rust_sources()? {
        if UNSAFE.iter().any(|place| file.starts_with(place)) || file.ends_with("rules.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let found = code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
            assert!(!found, "{}:{} uses unsafe", file.display(), number + 1);
        }
    }
    Ok(())
}

#[test]
fn every_source_file_opens_with_what_it_is() -> Result<()> {
    let bare: Vec<_> = repository::rust_sources()?
        .into_iter()
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(file, _)| file)
        .collect();
    assert!(bare.is_empty(), "no `//!` header: {bare:?}");
    Ok(())
}

#[test]
fn no_file_outgrows_its_reader() -> Result<()> {
    let large: Vec<_> = repository::rust_sources()?
        .into_iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(large.is_empty(), "files over {FILE_LINES_MAX} lines: {large:?}");
    Ok(())
}

/// Generated code and tests have no bound.
#[test]
fn no_function_outgrows_a_screen() -> Result<()> {
    let is_shipped = |file: &std::path::Path| {
        let path = file.to_string_lossy();
        !path.contains("generated") && !path.contains("tests") && !path.contains("end_to_end")
    };
    let mut long = Vec::new();
    for (file, text) in repository::rust_sources()?.into_iter().filter(|(file, _)| is_shipped(file)) {
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let functions = functions_of(shipped).filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        long.extend(functions.map(|(name, lines)| format!("{}: {name} has {lines}", file.display())));
    }
    assert!(long.is_empty(), "functions over {FUNCTION_LINES_MAX} lines: {long:?}");
    Ok(())
}

/// Returns (first line, number of lines) of every function with a body, as rustfmt writes them.
fn functions_of(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let function = move |at: usize| {
        let line = lines[at];
        let is_function = line.trim_start().split(['(', '<']).next()?.split(' ').any(|word| word == "fn");
        let indent = &line[..line.len() - line.trim_start().len()];
        let end =
            lines[at..].iter().position(|line| *line == format!("{indent}}}") || *line == format!("{indent}}};"))?;
        // A declaration ends before any body begins.
        let has_body = lines[at..=at + end].iter().find(|line| line.ends_with([';', '{']))?.ends_with('{');
        (is_function && has_body && !line.trim_start().starts_with("//")).then_some((line, end + 1))
    };
    (0..text.lines().count()).filter_map(function)
}
