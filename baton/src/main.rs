//! The one shipped binary: reads the command line and the configuration, and starts what was asked for.
#![allow(unreachable_pub, reason = "a binary exports nothing; `pub` says what a module offers to its siblings")]

mod bundled;
mod chat;
mod cli;
mod config;
mod http;
mod role;
mod serve;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use node::drain::{Cause, Supervision, asked};
use node::exit::Exit;

use cli::{Arguments, Command};
use config::{BatonConfig, DEFAULTS};

/// How long work on threads of its own may take to end after everything else.
const LAST_WORK: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    kv_transfer::restore_signals();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; clap knows the difference.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return exit.into();
        }
    };
    match run(arguments.command) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            eprintln!("baton: {}", cli::told(&error));
            cli::exit_of(&error)
        }
    }
}

fn run(command: Command) -> Result<()> {
    node::door::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve(arguments) => {
                let config = arguments.config()?;
                node::telemetry::log_to_stderr(&config.telemetry.log)?;
                serve::run(&config, stop_asked(Supervision::Alone)).await
            }
            Command::Router(arguments) => role::router(&arguments).await,
            Command::Prefill(arguments) => role::prefill(&arguments).await,
            Command::Decode(arguments) => role::decode(&arguments).await,
            Command::Verify(arguments) => {
                let interrupted = async {
                    stop_asked(Supervision::Alone).await;
                };
                verify::run(arguments, interrupted).await
            }
            Command::Chat(arguments) => chat::run(arguments).await,
            Command::Config(arguments) => print_config(&arguments),
            // Follows its leader on this thread; the runtime has nothing to do.
            Command::Rank(arguments) => role::rank(&arguments),
        }
    });
    // What has ended in order left nothing behind; work that cannot be stopped, on a text that nobody waits for any more,
    // must not keep the process.
    runtime.shutdown_timeout(LAST_WORK);
    outcome
}

/// Without changes the commented defaults, else the outcome of the changes.
fn print_config(arguments: &cli::ConfigArgs) -> Result<()> {
    if arguments.is_unchanged() {
        print!("{DEFAULTS}");
        return Ok(());
    }
    let config: BatonConfig = arguments.load()?;
    print!("{}", toml::to_string(&config)?);
    Ok(())
}

/// Resolves when this process shall end, and says why.
async fn stop_asked(supervision: Supervision) -> Cause {
    match asked(supervision).await {
        Ok(cause) => {
            tracing::info!(?cause, "stopping");
            cause
        }
        Err(error) => {
            tracing::error!(%error, "cannot watch for signals; only the default actions end this process");
            std::future::pending().await
        }
    }
}
