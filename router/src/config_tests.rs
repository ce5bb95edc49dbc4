//! Tests of the router's configuration.

use super::*;

fn workers() -> Config {
    let workers = Workers { prefill: vec!["a:1".to_owned()], decode: vec!["b:1".to_owned()] };
    Config { workers, ..Config::default() }
}

#[test]
fn defaults_are_a_configuration_except_for_workers() {
    assert!(workers().check().is_ok());
    let error = Config::default().check().unwrap_err();
    assert_eq!(error.to_string(), "router.workers names no worker");
}

#[test]
fn unknown_keys_and_impossible_values_are_named() {
    let error = serde_json::from_str::<Config>(r#"{"limits": {"n_maxx": 1}}"#).unwrap_err();
    assert!(error.to_string().contains("n_maxx"), "{error}");
    let mut config = workers();
    config.limits.n_max = 0;
    assert!(config.check().unwrap_err().to_string().contains("router.limits.n_max must be above 0"));
    config.limits.n_max = 1_000;
    assert!(config.check().unwrap_err().to_string().contains("router.limits.n_max must not be above 128"));
}

#[test]
fn a_configuration_survives_being_written() {
    let config = workers();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
}
