//! Command line of gpu-check: read here, and written for the processes that are started.

use std::io;
use std::process::Command;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, ValueEnum, value_parser};

use crate::measure::Measurement;

/// Measures this machine's GPU and prints one JSON document.
#[derive(Debug, Parser)]
#[command(
    name = "gpu-check",
    after_help = "Exit code: 0 complete (without a GPU, \"gpu\" is null), 1 the document has errors in it, 64 usage."
)]
pub(crate) struct Options {
    /// The device to measure, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) device: u32,
    /// Where the second process of the ipc measurement keeps its memory; the same device if not given.
    #[arg(long, value_name = "N")]
    pub(crate) peer_device: Option<u32>,
    /// What to measure, separated by commas; everything if not given. The device itself is always described.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = selectable(),
        default_values_t = Measurement::selectable(),
        hide_default_value = true
    )]
    pub(crate) only: Vec<Measurement>,
    /// Seconds that one measurement may take, 1 to 600.
    #[arg(
        long = "limit-s",
        value_name = "S",
        value_parser = value_parser!(u64).range(1..=600).map(Duration::from_secs),
        default_value = "60"
    )]
    pub(crate) limit: Duration,
    /// This process was started by another one for one measurement.
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) measure: Option<Measurement>,
    /// This process was started by the ipc measurement as the other side; it reads its task from standard input.
    #[arg(long, hide = true)]
    pub(crate) peer: bool,
}

/// All measurements but `device`, which is always described.
fn selectable() -> impl TypedValueParser<Value = Measurement> {
    PossibleValuesParser::new(Measurement::selectable().filter_map(|each| each.to_possible_value()))
        .try_map(|name| Measurement::from_str(&name, false))
}

impl Options {
    /// Command that runs this program in the role of these arguments, with the same devices and limit.
    pub(crate) fn again(&self, role: &[&str]) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(role);
        command.args(["--device", &self.device.to_string(), "--limit-s", &self.limit.as_secs().to_string()]);
        if let Some(peer) = self.peer_device {
            command.args(["--peer-device", &peer.to_string()]);
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(["gpu-check"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty())))
    }

    #[test]
    fn nothing_asks_for_everything() {
        let options = parse("").unwrap();
        assert_eq!((options.measure, options.peer, options.device), (None, false, 0));
        assert_eq!((options.peer_device, options.limit), (None, Duration::from_secs(60)));
        assert!(options.only.into_iter().eq(Measurement::selectable()));
    }

    #[test]
    fn what_a_child_is_started_with_says_the_same() {
        let asked = parse("--device 2 --peer-device 3 --limit-s 9 --only ipc,wgmma").unwrap();
        assert_eq!(asked.only, [Measurement::Ipc, Measurement::Wgmma]);
        for (role, measure, peer) in [
            (&["--measure", "sm_sweep"][..], Some(Measurement::SmSweep), false),
            (&["--measure", "device"], Some(Measurement::Device), false),
            (&["--peer"], None, true),
            (&[], None, false),
        ] {
            let command = asked.again(role).unwrap();
            let child = Options::try_parse_from([command.get_program()].into_iter().chain(command.get_args())).unwrap();
            assert_eq!((child.measure, child.peer), (measure, peer));
            assert_eq!((child.device, child.peer_device, child.limit), (2, Some(3), Duration::from_secs(9)));
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (line, kind, named) in [
            ("--devise 1", ErrorKind::UnknownArgument, "'--devise'"),
            ("--device", ErrorKind::InvalidValue, "'--device <N>'"),
            ("--device -1", ErrorKind::UnknownArgument, "'-1'"),
            ("--device one", ErrorKind::ValueValidation, "'one' for '--device <N>'"),
            ("--limit-s 0", ErrorKind::ValueValidation, "0 is not in 1..=600"),
            ("--limit-s 601", ErrorKind::ValueValidation, "601 is not in 1..=600"),
            ("--only ipc,speed", ErrorKind::InvalidValue, "'speed' for '--only <NAMES>'"),
            ("--only ipc,device", ErrorKind::InvalidValue, "'device' for '--only <NAMES>'"),
            ("--only ,", ErrorKind::InvalidValue, "--only <NAMES>"),
        ] {
            let mistake = parse(line).unwrap_err();
            assert_eq!(mistake.kind(), kind, "{line}: {mistake}");
            assert!(mistake.to_string().contains(named), "{line}: {mistake}");
        }
    }

    #[test]
    fn the_help_names_every_measurement_and_no_role() {
        let help = Options::command().render_help().to_string();
        for measurement in Measurement::selectable() {
            assert!(help.contains(&measurement.to_string()), "{help}");
        }
        assert!(!help.contains("--measure") && !help.contains("--peer "), "{help}");
    }
}
