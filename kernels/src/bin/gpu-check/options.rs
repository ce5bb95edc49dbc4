//! The command line of gpu-check; does nothing but read it.

use std::time::Duration;

use crate::measure::Measurement;

pub(crate) const HELP: &str = "\
gpu-check: measures this machine's GPU and prints one JSON document

usage: gpu-check [--device N] [--peer-device N] [--only NAME[,NAME...]] [--limit-s S]

  --device N       the device to measure, counted from 0 (default 0)
  --peer-device N  where the second process of the ipc measurement keeps its memory (default: the same device)
  --only NAMES     of bandwidth, mma_sync, wgmma, cublas_lt, partitions, sm_sweep, ipc (default: all);
                   the device itself is always described
  --limit-s S      seconds that one measurement may take, 1 to 600 (default 60)

Exit code: 0 the document is complete (without a GPU, \"gpu\" is null), 1 it has errors in it, 64 usage.
";

const LIMIT_DEFAULT: Duration = Duration::from_secs(60);
const LIMIT_S_MAX: u64 = 600;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) role: Role,
    pub(crate) device: u32,
    pub(crate) peer_device: Option<u32>,
    /// What a report consists of, besides the device.
    pub(crate) only: Vec<Measurement>,
    /// How long one measurement may take.
    pub(crate) limit: Duration,
}

/// What this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one that a person started.
    Report,
    /// Started by it for one measurement (`--measure NAME`).
    Measure(Measurement),
    /// Started by the ipc measurement as the other side (`--peer`); reads its task from standard input.
    Peer,
    Help,
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mistake {
    #[error("unknown option {0:?}")]
    Unknown(String),
    #[error("{option} needs a value")]
    NoValue { option: &'static str },
    #[error("{option} {value:?}: {expected}")]
    Value { option: &'static str, value: String, expected: &'static str },
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, Mistake> {
        let mut options = Options {
            role: Role::Report,
            device: 0,
            peer_device: None,
            only: Measurement::SELECTABLE.to_vec(),
            limit: LIMIT_DEFAULT,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = |option| arguments.next().ok_or(Mistake::NoValue { option });
            match argument.as_str() {
                "--device" => options.device = ordinal("--device", value("--device")?)?,
                "--peer-device" => options.peer_device = Some(ordinal("--peer-device", value("--peer-device")?)?),
                "--only" => options.only = selection(&value("--only")?)?,
                "--limit-s" => options.limit = limit(value("--limit-s")?)?,
                "--measure" => options.role = Role::Measure(measurement("--measure", &value("--measure")?)?),
                "--peer" => options.role = Role::Peer,
                "--help" | "-h" => options.role = Role::Help,
                _ => return Err(Mistake::Unknown(argument)),
            }
        }
        Ok(options)
    }

    /// The arguments that start this program again in another role, with everything else as it is.
    pub(crate) fn arguments_as(&self, role: &Role) -> Vec<String> {
        let mut arguments = match role {
            Role::Report => Vec::new(),
            Role::Measure(measurement) => vec!["--measure".to_owned(), measurement.name().to_owned()],
            Role::Peer => vec!["--peer".to_owned()],
            Role::Help => vec!["--help".to_owned()],
        };
        arguments.extend(["--device".to_owned(), self.device.to_string()]);
        arguments.extend(["--limit-s".to_owned(), self.limit.as_secs().to_string()]);
        if let Some(peer) = self.peer_device {
            arguments.extend(["--peer-device".to_owned(), peer.to_string()]);
        }
        arguments
    }
}

fn ordinal(option: &'static str, value: String) -> Result<u32, Mistake> {
    value.parse().map_err(|_| Mistake::Value { option, value, expected: "a device number, counted from 0" })
}

fn limit(value: String) -> Result<Duration, Mistake> {
    match value.parse() {
        Ok(seconds @ 1..=LIMIT_S_MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(Mistake::Value { option: "--limit-s", value, expected: "whole seconds from 1 to 600" }),
    }
}

fn selection(value: &str) -> Result<Vec<Measurement>, Mistake> {
    value.split(',').map(|name| measurement("--only", name)).collect()
}

fn measurement(option: &'static str, name: &str) -> Result<Measurement, Mistake> {
    Measurement::named(name).ok_or_else(|| Mistake::Value {
        option,
        value: name.to_owned(),
        expected: "not a measurement (see --help)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Mistake> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn nothing_asks_for_everything() {
        let options = parse("").unwrap();
        assert_eq!((&options.role, options.device, options.limit), (&Role::Report, 0, LIMIT_DEFAULT));
        assert_eq!(options.only, Measurement::SELECTABLE);
    }

    #[test]
    fn what_a_child_is_started_with_says_the_same() {
        let asked = parse("--device 2 --peer-device 3 --limit-s 9 --only ipc,wgmma").unwrap();
        assert_eq!(asked.only, [Measurement::Ipc, Measurement::Wgmma]);
        for role in [Role::Measure(Measurement::SmSweep), Role::Peer, Role::Help, Role::Report] {
            let child = Options::parse(asked.arguments_as(&role).into_iter()).unwrap();
            assert_eq!(child.role, role);
            assert_eq!((child.device, child.peer_device, child.limit), (2, Some(3), Duration::from_secs(9)));
        }
    }

    #[test]
    fn mistakes_are_named() {
        let message = |line| parse(line).unwrap_err().to_string();
        assert_eq!(message("--devise 1"), "unknown option \"--devise\"");
        assert_eq!(message("--device"), "--device needs a value");
        assert_eq!(message("--device -1"), "--device \"-1\": a device number, counted from 0");
        assert_eq!(message("--limit-s 0"), "--limit-s \"0\": whole seconds from 1 to 600");
        assert_eq!(message("--limit-s 601"), "--limit-s \"601\": whole seconds from 1 to 600");
        assert_eq!(message("--only ipc,speed"), "--only \"speed\": not a measurement (see --help)");
        assert_eq!(message("--only ,"), "--only \"\": not a measurement (see --help)");
    }

    #[test]
    fn the_help_names_every_measurement() {
        for measurement in Measurement::SELECTABLE {
            assert!(HELP.contains(measurement.name()), "{}", measurement.name());
        }
    }
}
