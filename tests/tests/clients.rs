//! Test of an ordinary client against `baton serve`: the Python openai package, in a private environment.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use baton_tests::deployment::{Deployment, binary};
use baton_tests::repository;

#[test]
fn the_python_openai_client_streams_a_chat() -> Result<()> {
    let Some(python) = environment()? else { return Ok(()) };
    for mode in ["disaggregated", "aggregated"] {
        let deployment = Deployment::start(&["--mode", mode])?;
        let output = Command::new(&python)
            .arg(repository::root().join("tests/clients/openai_chat.py"))
            .arg(format!("http://{}", deployment.address))
            .output()
            .context("running the client")?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success() && out.trim() == "ok", "{mode}: {out}\n{err}\n{}", deployment.log());
    }
    Ok(())
}

/// Virtual environment beside the build with the pinned client; without Python `None`, with the reason printed.
fn environment() -> Result<Option<PathBuf>> {
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
