//! The repository as the rule tests see it: root, sources and crates; runs nothing of the project.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Returns the workspace root.
#[must_use]
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Returns every existing file that git tracks or would track, relative to the root.
pub fn files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("git ls-files")?;
    ensure!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).context("file names that are not UTF-8")?;
    Ok(listed.lines().map(PathBuf::from).filter(|file| root().join(file).is_file()).collect())
}

/// Returns the Rust sources that are not generated; generated files have `@generated` in their first lines.
pub fn rust_sources() -> Result<Vec<(PathBuf, String)>> {
    let mut sources = Vec::new();
    for file in files()?.into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")) {
        let text =
            std::fs::read_to_string(root().join(&file)).with_context(|| format!("reading {}", file.display()))?;
        if !text.lines().take(5).any(|line| line.contains("@generated")) {
            sources.push((file, text));
        }
    }
    Ok(sources)
}

/// Returns `cargo metadata` of the workspace's own crates.
pub fn metadata() -> Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}
