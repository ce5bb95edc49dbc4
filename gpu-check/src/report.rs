//! The document: starts the measuring processes and composes their results; measures nothing itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::measure::Measurement;
use crate::options::Options;
use crate::value::error;
use crate::{ABSENT, COMPLETE, PARTIAL, bounded};

/// Version of the document's form, raised when a field changes its name or meaning.
const FORM: u64 = 1;
/// Time from the limit, at which a measuring process ends itself, until it is killed.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Outcome {
    Measured(Value),
    Failed(String),
    NoGpu(String),
}

pub(crate) fn document(options: &Options) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    composed(now.as_secs(), &options.only, |each| start(options, each))
}

/// Composes the document. A missing GPU is a result, not an error.
fn composed(measured_at_unix_s: u64, only: &[Measurement], run: impl Fn(Measurement) -> Outcome) -> Value {
    let mut document = json!({"gpu_check_form": FORM, "measured_at_unix_s": measured_at_unix_s, "gpu": null});
    let device = match run(Measurement::Device) {
        Outcome::NoGpu(reason) => {
            document["reason"] = reason.into();
            return document;
        }
        outcome => outcome,
    };
    let gpu = &mut document["gpu"];
    gpu["device"] = device.into_value();
    for each in Measurement::selectable().filter(|each| only.contains(each)) {
        // The three multiplication rates are one field.
        let group = match each {
            Measurement::MmaSync | Measurement::Wgmma | Measurement::CublasLt => &mut gpu["bf16_matrix_rate"],
            Measurement::Device
            | Measurement::Bandwidth
            | Measurement::Partitions
            | Measurement::SmSweep
            | Measurement::Ipc => &mut *gpu,
        };
        group[each.to_string()] = run(each).into_value();
    }
    document
}

fn start(options: &Options, measurement: Measurement) -> Outcome {
    let mut command = match options.again(&["--measure", &measurement.to_string()]) {
        Ok(command) => command,
        Err(error) => return Outcome::Failed(format!("this program's own file: {error}")),
    };
    let ended = match bounded::run(&mut command, "", options.limit + GRACE) {
        Ok(ended) => ended,
        Err(unended) => return Outcome::Failed(unended.to_string()),
    };
    match ended.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(COMPLETE | PARTIAL) => match serde_json::from_str(&ended.output) {
            Ok(result) => Outcome::Measured(result),
            Err(error) => Outcome::Failed(format!("its result is not JSON: {error}")),
        },
        Some(ABSENT) => Outcome::NoGpu(ended.complaint),
        _ if ended.complaint.is_empty() => Outcome::Failed(format!("ended without a word: {}", ended.status)),
        Some(_) => Outcome::Failed(ended.complaint),
        None => Outcome::Failed(format!("{}: {}", ended.status, ended.complaint)),
    }
}

impl Outcome {
    fn into_value(self) -> Value {
        match self {
            Outcome::Measured(value) => value,
            Outcome::Failed(message) | Outcome::NoGpu(message) => error(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::value::has_error;

    fn document(only: &[Measurement], run: impl Fn(Measurement) -> Outcome) -> Value {
        composed(1_764_000_000, only, run)
    }

    fn everything() -> Vec<Measurement> {
        Measurement::selectable().collect()
    }

    #[test]
    fn without_a_gpu_nothing_is_started_and_nothing_is_wrong() {
        let document = document(&everything(), |measurement| match measurement {
            Measurement::Device => Outcome::NoGpu("no driver".to_owned()),
            other => panic!("{other:?} was started"),
        });
        assert!(!has_error(&document));
        expect![[r#"
            {
              "gpu_check_form": 1,
              "measured_at_unix_s": 1764000000,
              "gpu": null,
              "reason": "no driver"
            }"#]]
        .assert_eq(&format!("{document:#}"));
    }

    #[test]
    fn one_failure_costs_its_own_field_only() {
        let document = document(&everything(), |measurement| match measurement {
            Measurement::Wgmma => Outcome::Failed("cuLaunchKernel: \"illegal\"".to_owned()),
            Measurement::Ipc => Outcome::NoGpu("gone".to_owned()),
            other => Outcome::Measured(json!({"of": other.to_string()})),
        });
        assert!(has_error(&document));
        expect![[r#"
            {
              "gpu_check_form": 1,
              "measured_at_unix_s": 1764000000,
              "gpu": {
                "device": {
                  "of": "device"
                },
                "bandwidth": {
                  "of": "bandwidth"
                },
                "bf16_matrix_rate": {
                  "mma_sync": {
                    "of": "mma_sync"
                  },
                  "wgmma": {
                    "error": "cuLaunchKernel: \"illegal\""
                  },
                  "cublas_lt": {
                    "of": "cublas_lt"
                  }
                },
                "partitions": {
                  "of": "partitions"
                },
                "sm_sweep": {
                  "of": "sm_sweep"
                },
                "ipc": {
                  "error": "gone"
                }
              }
            }"#]]
        .assert_eq(&format!("{document:#}"));
    }

    #[test]
    fn a_result_with_an_error_in_it_is_shown_and_not_complete() {
        let document = document(&[Measurement::Ipc], |measurement| match measurement {
            Measurement::Ipc => Outcome::Measured(error("half")),
            _ => Outcome::Measured(json!({})),
        });
        assert!(has_error(&document));
        assert_eq!(document["gpu"]["ipc"]["error"], "half");
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let document = document(&[Measurement::CublasLt], |_| Outcome::Measured(json!({})));
        expect![[r#"
            {
              "gpu_check_form": 1,
              "measured_at_unix_s": 1764000000,
              "gpu": {
                "device": {},
                "bf16_matrix_rate": {
                  "cublas_lt": {}
                }
              }
            }"#]]
        .assert_eq(&format!("{document:#}"));
    }
}
