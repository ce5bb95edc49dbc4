//! The command line and its exit codes; knows nothing of how commands work.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use node::drain::Supervision;
use node::exit::Exit;
use node::telemetry::{LogFormat, TelemetryError};

use crate::admin::NoAdminKey;
use crate::bench::BenchArgs;
use crate::chat::ChatArgs;
use crate::config::{BatonConfig, Mode, NotSet};
use crate::ending::CutShort;
use crate::key::{BadKey, KeyCommand};
use crate::plane::PlaneError;
use crate::serve::{EndedEarly, ServeError};
use crate::terminal::OutputError;
use crate::verify::VerifyArgs;
use crate::vllm_names::VllmNames;

/// Serves large language models with prefill and decode on different compute.
#[derive(Debug, Parser)]
#[command(name = "baton", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A whole deployment on this host: router, prefill and decode workers, the bundled model if no other is named.
    Serve(ServeArgs),
    /// The router alone.
    Router(RoleArgs),
    /// One prefill worker.
    Prefill(RoleArgs),
    /// One decode worker (or an aggregated one, by configuration).
    Decode(RoleArgs),
    /// The same prompts through every mode and transport; compares tokens and log-probabilities bit for bit.
    Verify(VerifyArgs),
    /// Load on a server of the OpenAI API: latencies, rates and goodput, from a trace or made up.
    Bench(Box<BenchArgs>),
    /// Talk to a model in the terminal.
    Chat(ChatArgs),
    /// One rank of a worker, which starts it and tells it its job on standard input.
    #[command(hide = true)]
    Rank(RankArgs),
    /// API keys: make one, or print the SHA-256 of one.
    Key(KeyArgs),
    /// Print the configuration: the commented defaults, or the outcome of --config and --set.
    Config(ConfigArgs),
}

/// `baton key`.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// A TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change one value, e.g. decode.engine.sequences_max=32; may be repeated, wins over the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// `baton serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Directory of a Hugging Face model; the bundled one if not given.
    #[arg(value_name = "DIR", conflicts_with = "model")]
    directory: Option<PathBuf>,
    /// The same.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How prefill and decode are placed.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// What computes: cpu or modelled.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,
    /// Where the OpenAI API listens: host:port, or a port alone for this host only.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["host", "port"])]
    listen: Option<String>,
    /// The host part of --listen: a name or address of this machine, 0.0.0.0 or :: for all of them.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The port part of --listen.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// A key that clients must send; may be repeated. Other users of this host see a command line: the variable
    /// BATON_API_KEY or router.keys.file keep a key to yourself.
    #[arg(long = "api-key", value_name = "KEY")]
    api_keys: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    names: VllmNames,
}

/// One role.
#[derive(Debug, Clone, Args)]
pub struct RoleArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Announce readiness on standard output and end when standard input closes.
    #[arg(long, hide = true)]
    supervised: bool,
}

/// One rank of a worker.
#[derive(Debug, Clone, Args)]
pub struct RankArgs {
    /// The worker's log filter.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How its log lines are written.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = log_format)]
    pub log_format: LogFormat,
    /// The name of the worker.
    #[arg(long, value_name = "NAME", default_value = "worker")]
    pub worker: String,
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    let known = [LogFormat::Text, LogFormat::Json].into_iter().find(|format| format.label() == text);
    known.ok_or_else(|| "expected text or json".to_owned())
}

impl ConfigArgs {
    /// Returns true if the defaults apply unchanged.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.config.is_none() && self.settings.is_empty()
    }

    /// Loads the configuration.
    pub fn load(&self) -> Result<BatonConfig> {
        BatonConfig::load(self.config.as_deref(), &self.settings)
    }
}

impl RoleArgs {
    /// Tells whether a supervisor started this process.
    #[must_use]
    pub fn supervision(&self) -> Supervision {
        if self.supervised { Supervision::Child } else { Supervision::Alone }
    }

    /// Loads the configuration.
    pub fn load(&self) -> Result<BatonConfig> {
        self.config.load()
    }
}

impl ServeArgs {
    /// Returns the configuration with the command line's short cuts applied as settings, which are checked alike.
    pub fn config(&self) -> Result<BatonConfig> {
        let mut all = self.config.clone();
        let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
        if let Some(backend) = &self.backend {
            all.settings.push(format!("engine.backend={}", text(backend)));
        }
        if let Some(listen) = self.listen(&all)? {
            all.settings.push(format!("router.listen={}", text(&listen)));
        }
        all.settings.extend(self.names.settings());
        let mut config = all.load()?;
        if let Some(model) = self.model.as_ref().or(self.directory.as_ref()) {
            config.set_model(model);
        }
        if let Some(mode) = self.mode {
            config.set_mode(mode);
        }
        Ok(config)
    }

    /// Keys for clients in plain text.
    #[must_use]
    pub fn api_keys(&self) -> &[String] {
        &self.api_keys
    }

    /// Returns the address to listen on if the command line gives it or a part; the other part is the configuration's.
    fn listen(&self, configured: &ConfigArgs) -> Result<Option<String>> {
        if self.host.is_none() && self.port.is_none() {
            return Ok(self.listen.clone());
        }
        let configured = configured.load()?.router.listen;
        let configured = node::bind::listen_address(&configured).map_err(anyhow::Error::msg)?;
        let (host, port) = configured.rsplit_once(':').unwrap_or((&configured, "0"));
        let host = match self.host.as_deref() {
            Some(host) if host.parse::<std::net::Ipv6Addr>().is_ok() => format!("[{host}]"),
            Some(host) => host.to_owned(),
            None => host.to_owned(),
        };
        let port = self.port.map_or_else(|| port.to_owned(), |port| port.to_string());
        Ok(Some(format!("{host}:{port}")))
    }
}

/// Returns true for errors without a message: the user asked for the end, or does not read any more.
#[must_use]
pub fn is_quiet(error: &anyhow::Error) -> bool {
    error.is::<CutShort>() || matches!(error.downcast_ref(), Some(OutputError::Closed))
}

/// Returns the exit code for an error.
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> ExitCode {
    if let Some(child) = error.downcast_ref::<EndedEarly>() {
        // The child has classified its failure already.
        let code = child.status.code().and_then(|code| u8::try_from(code).ok());
        return code.map_or_else(|| Exit::Internal.into(), ExitCode::from);
    }
    classify(error).into()
}

fn classify(error: &anyhow::Error) -> Exit {
    if error.downcast_ref::<node::config::ConfigError>().is_some() {
        return Exit::Usage;
    }
    if let Some(TelemetryError::Filter { .. }) = error.downcast_ref() {
        return Exit::Usage;
    }
    if error.is::<NotSet>() {
        return Exit::Usage;
    }
    if error.is::<PlaneError>() || error.is::<NoAdminKey>() || error.is::<BadKey>() {
        return Exit::Usage;
    }
    if let Some(error) = error.downcast_ref::<client::Error>() {
        return exit_of_client(error);
    }
    match error.downcast_ref() {
        Some(OutputError::Closed) => return Exit::Done,
        Some(OutputError::Failed(_)) => return Exit::OutputLost,
        None => {}
    }
    if let Some(bind) = error.downcast_ref::<node::bind::BindError>() {
        return match bind.source.kind() {
            std::io::ErrorKind::InvalidInput => Exit::Usage,
            _ => Exit::Unavailable,
        };
    }
    match error.downcast_ref::<ServeError>() {
        Some(ServeError::Incompatible { .. }) => return Exit::Usage,
        Some(ServeError::KvCannotMove { .. } | ServeError::NoWorker { .. } | ServeError::NoDirectory { .. }) => {
            return Exit::Unavailable;
        }
        Some(ServeError::RouterEnded) => return Exit::Internal,
        None => {}
    }
    if let Some(worker) = error.downcast_ref::<worker::Error>() {
        return worker.exit();
    }
    // The machine refuses a file, a directory or a process.
    if error.is::<std::io::Error>() {
        return Exit::Unavailable;
    }
    if let Some(engine) = error.downcast_ref::<engine::EngineError>() {
        return match engine.blame() {
            engine::Blame::Model => Exit::ModelMissing,
            engine::Blame::Config => Exit::Usage,
            engine::Blame::Machine => Exit::Unavailable,
            engine::Blame::Ours => Exit::Internal,
        };
    }
    match error.downcast_ref::<router::Error>() {
        Some(router::Error::ModelFile(_) | router::Error::Tokenizer(_)) => Exit::ModelMissing,
        Some(router::Error::Config(_) | router::Error::Keys(_) | router::Error::Tls(_)) => Exit::Usage,
        Some(router::Error::Lack(_)) => Exit::Unavailable,
        Some(router::Error::Io { .. }) => Exit::Internal,
        None => Exit::Failed,
    }
}

fn exit_of_client(error: &client::Error) -> Exit {
    use client::Error;
    match error {
        Error::Target { .. } | Error::ApiKey | Error::Settings(_) | Error::Line { .. } | Error::File { .. } => {
            Exit::Usage
        }
        Error::Unreachable { .. }
        | Error::ConnectTimeout { .. }
        | Error::Tls { .. }
        | Error::NoAuthorities(_)
        | Error::Io { .. } => Exit::Unavailable,
        Error::TlsSettings(_) => Exit::Internal,
        Error::Request { .. }
        | Error::NoHttp { .. }
        | Error::Broken { .. }
        | Error::Stalled { .. }
        | Error::Status { .. }
        | Error::Answer { .. }
        | Error::TooLarge { .. }
        | Error::Unfinished
        | Error::ErrorEvent(_)
        | Error::NoModel(_) => Exit::Failed,
    }
}

/// Most bytes of a printed error: some errors quote their input, which may be a line of a megabyte.
const TOLD_BYTES_MAX: usize = 4_096;

/// Returns the error with its causes, bounded. A cause that is already part of the text is left out.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let cause = cause.trim_end();
        if told.is_empty() {
            told.push_str(cause);
        } else if !told.contains(cause) {
            told.push_str(": ");
            told.push_str(cause);
        }
    }
    within(told, TOLD_BYTES_MAX)
}

/// Returns the text, shortened in the middle: its start and its end say what is wrong.
fn within(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    let is_between_chars = |at: &usize| text.is_char_boundary(*at);
    let head = (0..=bytes_max / 2).rev().find(is_between_chars).unwrap_or(0);
    let tail = (text.len() - bytes_max / 2..text.len()).find(is_between_chars).unwrap_or(text.len());
    format!("{} [{} bytes left out] {}", &text[..head], tail - head, &text[tail..])
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_log_filter_that_is_none_is_a_wrong_configuration() {
        let (text, problem) = ("nonsense=x".to_owned(), "no level".to_owned());
        let error = TelemetryError::Filter { origin: "log level", text, problem };
        assert_eq!(classify(&error.into()), Exit::Usage);
    }

    #[test]
    fn nothing_to_verify_is_a_wrong_command_line() {
        assert!(Arguments::try_parse_from(["baton", "verify", "--prompts", "0"]).is_err());
        assert!(Arguments::try_parse_from(["baton", "verify"]).is_ok());
    }

    #[test]
    fn a_long_error_keeps_its_beginning_and_its_end() {
        let text = format!("begins {} ends", "ä".repeat(100_000));
        let said = told(&anyhow::anyhow!(text));
        assert!(said.len() < TOLD_BYTES_MAX + 100, "{}", said.len());
        assert!(said.starts_with("begins ä") && said.ends_with("ä ends") && said.contains(" bytes left out] "));
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = BatonConfig::load(Some(std::path::Path::new("/nowhere/baton.toml")), &[]).unwrap_err();
        let system = "No such file or directory (os error 2)";
        assert_eq!(told(&error), format!("cannot read configuration file /nowhere/baton.toml: {system}"));
        let layered = Err::<(), _>(anyhow::anyhow!("inner")).context("middle").context("outer").unwrap_err();
        assert_eq!(told(&layered), "outer: middle: inner");
    }
}
