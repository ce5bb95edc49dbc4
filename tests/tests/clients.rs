//! Test of an ordinary client against `baton serve`: the Python openai package, in a private environment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, binary};
use baton_tests::repository;

static INSTALLING: Mutex<()> = Mutex::new(());

#[test]
fn the_python_openai_client_streams_a_chat() -> Result<()> {
    let Some(python) = environment()? else { return Ok(()) };
    for mode in ["disaggregated", "aggregated"] {
        let deployment = Deployment::start(&["--mode", mode])?;
        passes(&python, "openai_chat.py", mode, &deployment)?;
    }
    Ok(())
}

/// The bundled model with a template that has tools: what it says is nonsense, but of the right form.
#[test]
fn the_python_openai_client_calls_tools_and_gets_structure() -> Result<()> {
    let Some(python) = environment()? else { return Ok(()) };
    let model = Folder::with_tools()?;
    for mode in ["disaggregated", "aggregated"] {
        let deployment = Deployment::start(&["--mode", mode, "--model", model.path.to_str().context("path")?])?;
        passes(&python, "openai_tools.py", mode, &deployment)?;
    }
    Ok(())
}

/// Runs a client's script against a deployment; fails with what all of them said.
fn passes(python: &Path, script: &str, mode: &str, deployment: &Deployment) -> Result<()> {
    let output = Command::new(python)
        .arg(repository::root().join("tests/clients").join(script))
        .arg(format!("http://{}", deployment.address))
        .output()
        .context("running the client")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.trim() == "ok", "{mode}: {out}\n{err}\n{}", deployment.log());
    Ok(())
}

/// Model folder of its own, which goes with it.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn with_tools() -> Result<Folder> {
        let folder = Folder { path: std::env::temp_dir().join(format!("baton-tools-{}", std::process::id())) };
        std::fs::create_dir_all(&folder.path)?;
        let demo = repository::root().join("models/demo");
        for file in
            ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        {
            std::fs::copy(demo.join(file), folder.path.join(file)).with_context(|| file.to_owned())?;
        }
        let template = repository::root().join("tests/clients/tools.jinja");
        std::fs::copy(template, folder.path.join("chat_template.jinja"))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays in the temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Virtual environment beside the build with the pinned client; without Python `None`, with the reason printed.
fn environment() -> Result<Option<PathBuf>> {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if !Command::new("python3").args(["-c", "import venv, ensurepip"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: no python3 with venv on this machine");
        return Ok(None);
    }
    let place = binary()?.parent().and_then(|dir| dir.parent()).context("target directory")?.join("clients-venv");
    let python = place.join("bin/python");
    let requirements = repository::root().join("tests/clients/requirements.txt");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    }
    run(Command::new(&python)
        .args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"])
        .arg(requirements))?;
    Ok(Some(python))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
