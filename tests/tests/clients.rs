//! Ordinary clients from their registries, unmodified, against `baton serve`: each has its scripts in tests/clients/.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, binary};
use baton_tests::repository;
use baton_tests::tools_model::ToolsModel;

const PYTHON: [&str; 10] = [
    "anthropic_messages.py",
    "openai_chat.py",
    "openai_tools.py",
    "openai_responses.py",
    "langchain_chat.py",
    "litellm_chat.py",
    "agents_run.py",
    "instructor_models.py",
    "pydantic_ai_agents.py",
    "lm_eval_tasks.py",
];
const NODE: [&str; 2] = ["openai.mjs", "ai_sdk.mjs"];

const KEY: &str = "a-key-that-every-client-has-to-send";

#[test]
fn clients_work_with_disaggregated_workers() -> Result<()> {
    all_pass("disaggregated")
}

#[test]
fn clients_work_with_an_aggregated_worker() -> Result<()> {
    all_pass("aggregated")
}

/// The table of docs/api.md has these scripts, and the versions that get installed.
#[test]
fn the_documented_clients_are_those_that_are_tested() -> Result<()> {
    let root = repository::root();
    let pins = ["tests/clients/requirements.txt", "tests/clients/js/package.json"].map(|list| root.join(list));
    let pins = pins.iter().map(fs::read_to_string).collect::<std::io::Result<Vec<_>>>()?.concat();
    let page = fs::read_to_string(root.join("docs/api.md"))?;
    let (_, section) = page.split_once("## Clients that are tested").context("the section is missing")?;
    let rows: Vec<Vec<&str>> = section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let of_column =
        |column: usize| rows.iter().filter_map(move |row| row.get(column)).flat_map(|cell| cell.split(", "));
    for version in of_column(2) {
        ensure!(
            pins.contains(&format!("=={version}\n")) || pins.contains(&format!(": \"{version}\"")),
            "{version} is not installed"
        );
    }
    let mut documented: Vec<&str> = of_column(3).collect();
    let mut tested: Vec<&str> = PYTHON.into_iter().chain(NODE).collect();
    documented.sort_unstable();
    tested.sort_unstable();
    assert_eq!(documented, tested);
    Ok(())
}

/// Runs one script after the other against one deployment; fails with what all that fail have said.
fn all_pass(mode: &str) -> Result<()> {
    let clients = installed_once()?;
    let model = ToolsModel::new(mode)?;
    let folder = model.path().to_str().context("path")?;
    let deployment = Deployment::start(&["--mode", mode, "--model", folder, "--api-key", KEY])?;
    let mut failures = Vec::new();
    for client in clients {
        let started = Instant::now();
        if let Err(error) = passes(client, folder, &deployment) {
            failures.push(format!("{error:#}"));
        }
        println!("{mode}: {} in {:.1} s", client.script.display(), started.elapsed().as_secs_f64());
    }
    ensure!(failures.is_empty(), "{mode}:\n{}\n{}", failures.join("\n\n"), deployment.log());
    Ok(())
}

/// Scripts find the server as OpenAI's own clients do, and limit their time themselves.
fn passes(client: &Client, folder: &str, deployment: &Deployment) -> Result<()> {
    let output = Command::new(&client.program)
        .arg(&client.script)
        .arg(folder)
        .env("OPENAI_BASE_URL", format!("http://{}/v1", deployment.address))
        .env("OPENAI_API_KEY", KEY)
        .env("NO_PROXY", "127.0.0.1")
        // Compiled modules are kept, not in the source tree.
        .env_remove("PYTHONDONTWRITEBYTECODE")
        .env("PYTHONPYCACHEPREFIX", beside_the_build("clients-pycache")?)
        .output()
        .with_context(|| format!("{client:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.trim() == "ok", "{}: {out}\n{err}", client.script.display());
    Ok(())
}

/// A script and the program that runs it, with its packages installed.
#[derive(Debug)]
struct Client {
    program: PathBuf,
    script: PathBuf,
}

/// The clients of the languages that this machine has, installed beside the build.
fn installed_once() -> Result<&'static [Client]> {
    static CLIENTS: OnceLock<std::result::Result<Vec<Client>, String>> = OnceLock::new();
    let clients = CLIENTS.get_or_init(|| {
        let both = python_clients().and_then(|python| Ok([python, node_clients()?].into_iter().flatten().collect()));
        both.map_err(|error: anyhow::Error| format!("{error:#}"))
    });
    clients.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// Clients in a virtual environment; without Python none, and the reason is printed.
fn python_clients() -> Result<Vec<Client>> {
    let probe = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    if !succeeds("python3", &["-c", probe]) {
        println!("skipped: no python3 (3.11 or newer) with venv on this machine");
        return Ok(Vec::new());
    }
    let lists = repository::root().join("tests/clients");
    let (requirements, constraints) = (lists.join("requirements.txt"), lists.join("constraints.txt"));
    let place = beside_the_build("clients-venv")?;
    let python = place.join("bin/python");
    installed(&place, &[&requirements, &constraints], || {
        run(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
        // Only what is imported gets compiled, by those who import it.
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]);
        run(pip.arg("-r").arg(&requirements).arg("-c").arg(&constraints))
    })?;
    Ok(PYTHON.map(|script| Client { program: python.clone(), script: lists.join(script) }).into())
}

/// Clients in a folder with the scripts, because scripts look for packages beside themselves; without Node none, and the
/// reason is printed.
fn node_clients() -> Result<Vec<Client>> {
    if !succeeds("node", &["--version"]) || !succeeds("npm", &["--version"]) {
        println!("skipped: no node with npm on this machine");
        return Ok(Vec::new());
    }
    let source = repository::root().join("tests/clients/js");
    let place = beside_the_build("clients-js")?;
    installed(&place, &[&source.join("package-lock.json")], || {
        copied(&source, &place)?;
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&place))
    })?;
    copied(&source, &place)?;
    Ok(NODE.map(|script| Client { program: "node".into(), script: place.join(script) }).into())
}

fn beside_the_build(name: &str) -> Result<PathBuf> {
    Ok(binary()?.parent().and_then(Path::parent).context("target directory")?.join(name))
}

/// Installs into an empty place, unless it holds what these lists name.
fn installed(place: &Path, lists: &[&Path], install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = lists.iter().map(fs::read_to_string).collect::<std::io::Result<Vec<_>>>()?.concat();
    let stamp = place.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    let started = Instant::now();
    install()?;
    println!("installed {} in {:.0} s", place.display(), started.elapsed().as_secs_f64());
    fs::write(stamp, wanted).context("writing down what is installed")
}

/// Copies the files of a folder.
fn copied(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
