//! The bundled model with a template that has tools; knows no server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::repository;

const FILES: [&str; 5] =
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/// Folder of a model whose answers are nonsense, but of the right form. It goes with this.
#[derive(Debug)]
pub struct ToolsModel {
    path: PathBuf,
}

impl ToolsModel {
    /// Makes the folder; the name tells it from others of this process.
    pub fn new(name: &str) -> Result<ToolsModel> {
        let path = std::env::temp_dir().join(format!("baton-tools-{name}-{}", std::process::id()));
        let folder = ToolsModel { path };
        fs::create_dir_all(&folder.path)?;
        let root = repository::root();
        for file in FILES {
            fs::copy(root.join("models/demo").join(file), folder.path.join(file)).with_context(|| file.to_owned())?;
        }
        fs::copy(root.join("tests/clients/tools.jinja"), folder.path.join("chat_template.jinja"))?;
        Ok(folder)
    }

    /// Path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ToolsModel {
    fn drop(&mut self) {
        // A folder that stays in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.path);
    }
}
