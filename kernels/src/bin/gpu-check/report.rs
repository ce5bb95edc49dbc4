//! The document: which processes are started for it and how their results are put together; measures nothing itself.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::json::Json;
use crate::measure::Measurement;
use crate::options::{Options, Role};
use crate::{ABSENT, PARTIAL, bounded};

/// Version of the document's form: raised when a field changes its name or meaning.
const FORM: u64 = 1;
/// A measuring process ends itself at the limit; one that cannot is killed so much later.
const GRACE: Duration = Duration::from_secs(5);

/// Everything that is reported.
#[derive(Debug)]
pub(crate) struct Report {
    measured_at_unix_s: u64,
    gpu: Gpu,
}

#[derive(Debug)]
enum Gpu {
    None { reason: String },
    Measured(Vec<(Measurement, Outcome)>),
}

/// What one measuring process left.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// JSON text.
    Measured(String),
    /// JSON text with errors in it.
    InPart(String),
    Failed(String),
    NoGpu(String),
}

impl Report {
    /// Runs the measurements, one after the other.
    pub(crate) fn take(options: &Options) -> Report {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Report { measured_at_unix_s: now.as_secs(), gpu: Gpu::measured(options, |each| start(options, each)) }
    }

    /// Whether nothing failed. That there is no GPU is a result, too.
    pub(crate) fn is_complete(&self) -> bool {
        match &self.gpu {
            Gpu::None { .. } => true,
            Gpu::Measured(fields) => fields.iter().all(|(_, outcome)| matches!(outcome, Outcome::Measured(_))),
        }
    }

    pub(crate) fn to_json(&self) -> Json {
        let mut fields =
            vec![("gpu_check_form", Json::Count(FORM)), ("measured_at_unix_s", Json::Count(self.measured_at_unix_s))];
        match &self.gpu {
            Gpu::None { reason } => fields.extend([("gpu", Json::Null), ("reason", Json::text(reason))]),
            Gpu::Measured(outcomes) => fields.push(("gpu", grouped(outcomes))),
        }
        Json::Object(fields)
    }
}

impl Gpu {
    fn measured(options: &Options, run: impl Fn(Measurement) -> Outcome) -> Gpu {
        let device = match run(Measurement::Device) {
            Outcome::NoGpu(reason) => return Gpu::None { reason },
            outcome => outcome,
        };
        let mut fields = vec![(Measurement::Device, device)];
        let selected = Measurement::SELECTABLE.into_iter().filter(|each| options.only.contains(each));
        fields.extend(selected.map(|each| (each, run(each))));
        Gpu::Measured(fields)
    }
}

fn start(options: &Options, measurement: Measurement) -> Outcome {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Outcome::Failed(format!("this program's own file: {error}")),
    };
    let mut command = Command::new(program);
    command.args(options.arguments_as(&Role::Measure(measurement)));
    match bounded::run(&mut command, "", options.limit + GRACE) {
        Err(unended) => Outcome::Failed(unended.to_string()),
        Ok(ended) if ended.status.success() => Outcome::Measured(ended.output),
        Ok(ended) if ended.status.code() == Some(i32::from(PARTIAL)) => Outcome::InPart(ended.output),
        Ok(ended) if ended.status.code() == Some(i32::from(ABSENT)) => Outcome::NoGpu(ended.complaint),
        Ok(ended) if ended.complaint.is_empty() => Outcome::Failed(format!("ended without a word: {}", ended.status)),
        Ok(ended) if ended.status.code().is_some() => Outcome::Failed(ended.complaint),
        Ok(ended) => Outcome::Failed(format!("{}: {}", ended.status, ended.complaint)),
    }
}

/// The three ways to multiply are one field.
fn grouped(outcomes: &[(Measurement, Outcome)]) -> Json {
    let mut fields = Vec::new();
    let mut rates = Vec::new();
    for (measurement, outcome) in outcomes {
        let field = (measurement.name(), outcome.to_json());
        match measurement {
            Measurement::Mma | Measurement::Wgmma | Measurement::CublasLt => rates.push(field),
            Measurement::Device
            | Measurement::Bandwidth
            | Measurement::Partitions
            | Measurement::SmSweep
            | Measurement::Ipc => fields.push(field),
        }
    }
    if !rates.is_empty() {
        let after_bandwidth = fields
            .iter()
            .position(|(name, _)| *name == Measurement::Bandwidth.name())
            .map_or(fields.len().min(1), |place| place + 1);
        fields.insert(after_bandwidth, ("bf16_matrix_rate", Json::Object(rates)));
    }
    Json::Object(fields)
}

impl Outcome {
    fn to_json(&self) -> Json {
        match self {
            Outcome::Measured(json) | Outcome::InPart(json) => Json::Written(json.clone()),
            Outcome::Failed(message) | Outcome::NoGpu(message) => Json::error(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn options(only: &[Measurement]) -> Options {
        Options { only: only.to_vec(), ..Options::parse(std::iter::empty()).unwrap() }
    }

    fn report(only: &[Measurement], run: impl Fn(Measurement) -> Outcome) -> Report {
        Report { measured_at_unix_s: 1_764_000_000, gpu: Gpu::measured(&options(only), run) }
    }

    #[test]
    fn without_a_gpu_nothing_is_started_and_nothing_is_wrong() {
        let report = report(&Measurement::SELECTABLE, |measurement| match measurement {
            Measurement::Device => Outcome::NoGpu("no driver".to_owned()),
            other => panic!("{other:?} was started"),
        });
        assert!(report.is_complete());
        expect![[r#"
            {
              "gpu_check_form": 1,
              "measured_at_unix_s": 1764000000,
              "gpu": null,
              "reason": "no driver"
            }"#]]
        .assert_eq(&report.to_json().to_string());
    }

    #[test]
    fn one_failure_costs_its_own_field_only() {
        let report = report(&Measurement::SELECTABLE, |measurement| match measurement {
            Measurement::Wgmma => Outcome::Failed("cuLaunchKernel: \"illegal\"".to_owned()),
            Measurement::Ipc => Outcome::NoGpu("gone".to_owned()),
            other => Outcome::Measured(Json::Object(vec![("of", Json::text(other.name()))]).to_string()),
        });
        assert!(!report.is_complete());
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
        .assert_eq(&report.to_json().to_string());
    }

    #[test]
    fn a_result_with_an_error_in_it_is_shown_and_not_complete() {
        let report = report(&[Measurement::Ipc], |measurement| match measurement {
            Measurement::Ipc => Outcome::InPart(Json::error("half").to_string()),
            _ => Outcome::Measured("{}".to_owned()),
        });
        assert!(!report.is_complete());
        assert!(report.to_json().to_string().contains("\"error\": \"half\""));
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let report = report(&[Measurement::CublasLt], |_| Outcome::Measured("{}".to_owned()));
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
        .assert_eq(&report.to_json().to_string());
    }
}
