//! The one shipped binary: reads the command line and the configuration, and runs the command.
#![allow(unreachable_pub, reason = "a binary exports nothing; `pub` says what a module offers to its siblings")]

mod access;
mod admin;
mod bench;
mod bundled;
mod chat;
mod cli;
mod config;
mod ending;
mod key;
mod plane;
mod role;
mod serve;
mod telemetry;
mod terminal;
mod verify;
mod vllm_names;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use node::drain::Supervision;
use node::exit::Exit;
use node::telemetry::{LAST_LINES, RequestLog, Stream};

use cli::{Arguments, Command, RoleArgs};
use config::{BatonConfig, DEFAULTS};
use ending::{CutShort, Ending};
use terminal::OutputError;

/// Time for tasks to end whose result is not needed any more.
const LAST_TASKS: Duration = Duration::from_millis(500);

/// Threads for blocking work (texts, host names) that start with the process. While the system has no room for more,
/// such work waits for one of these; without any it would be lost.
const BLOCKING_THREADS_MIN: usize = 2;
const FIRST_WORK: Duration = Duration::from_millis(5);
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn main() -> ExitCode {
    kv_transfer::restore_signals();
    kv_transfer::let_writes_fail();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; clap knows the difference.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let printed = error.print().map_err(OutputError::from);
            if let Some(advice) = vllm_names::advice(&error) {
                Stream::Stderr.line(&advice);
            }
            return match printed {
                Ok(()) | Err(OutputError::Closed) => exit.into(),
                Err(OutputError::Failed(_)) => Exit::OutputLost.into(),
            };
        }
    };
    let ended = run(arguments.command);
    if let Err(error) = &ended
        && !cli::is_quiet(error)
    {
        Stream::Stderr.line(&format!("baton: {}", cli::told(error)));
    }
    Stream::ALL.iter().for_each(|stream| stream.flush(LAST_LINES));
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(error) => match error.downcast_ref::<CutShort>() {
            Some(cut) => kv_transfer::exit_now(cut.code()),
            None => cli::exit_of(&error),
        },
    }
}

fn run(command: Command) -> Result<()> {
    node::door::raise_open_files();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_keep_alive(FOR_EVER).build().context("starting the runtime")?;
    start_blocking_threads(&runtime);
    let ended = runtime.block_on(perform(command));
    // Work without a receiver (tokenising a long text) must not keep the process alive.
    runtime.shutdown_timeout(LAST_TASKS);
    ended
}

/// Each task is busy while the next one is spawned, so each gets a new thread.
fn start_blocking_threads(runtime: &tokio::runtime::Runtime) {
    for _ in 0..BLOCKING_THREADS_MIN {
        runtime.spawn_blocking(|| std::thread::sleep(FIRST_WORK));
    }
}

async fn perform(command: Command) -> Result<()> {
    match command {
        Command::Serve(arguments) => {
            let mut config = arguments.config()?;
            // A person watches, who wants to see what is ready and what goes wrong.
            config.telemetry.start("router", RequestLog::Off)?;
            config.router.keys.list.extend(key::given(arguments.api_keys())?);
            serve::run(&config, &Ending::watch(Supervision::Alone)).await
        }
        Command::Router(arguments) => at_once_or(&arguments, |ending| role::router(&arguments, ending)).await,
        Command::Prefill(arguments) => at_once_or(&arguments, |ending| role::prefill(&arguments, ending)).await,
        Command::Decode(arguments) => at_once_or(&arguments, |ending| role::decode(&arguments, ending)).await,
        Command::Verify(arguments) => verify::run(arguments, &Ending::watch(Supervision::Alone)).await,
        Command::Bench(arguments) => bench::run(*arguments, &Ending::watch(Supervision::Alone)).await,
        Command::Chat(arguments) => chat::run(arguments).await,
        Command::Config(arguments) => print_config(&arguments),
        Command::Key(arguments) => key::run(&arguments.command),
        // Follows its leader on this thread; the runtime has nothing to do.
        Command::Rank(arguments) => role::rank(&arguments),
    }
}

/// Runs a role until it ends, or until a second request ends it at once.
async fn at_once_or<F: Future<Output = Result<()>>>(
    arguments: &RoleArgs,
    role: impl FnOnce(Ending) -> F,
) -> Result<()> {
    let ending = Ending::watch(arguments.supervision());
    tokio::select! {
        cut = ending.insisted() => Err(cut.into()),
        ended = role(ending.clone()) => ended,
    }
}

/// Prints the commented defaults, or the changed configuration.
fn print_config(arguments: &cli::ConfigArgs) -> Result<()> {
    if arguments.is_unchanged() {
        return Ok(terminal::print(DEFAULTS)?);
    }
    let config: BatonConfig = arguments.load()?;
    Ok(terminal::print(&config.to_file()?)?)
}
