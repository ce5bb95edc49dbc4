//! Finds the folder of a model from the path that an operator names; errors say what is there instead, and what to do.
//!
//! Knows how models lie on disks (hub caches, single files of other formats, adapters), but no key of a file.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::ModelFileError;
use crate::kinds::{Kind, kind_of};

/// Folder of the model that `named` leads to: itself, or the snapshot in a folder of the hub's cache. An error says
/// what is there instead of a folder with a config.json, and what to do.
pub fn open(named: &Path) -> Result<PathBuf, ModelFileError> {
    if named.as_os_str().is_empty() {
        return Err(wrong(
            Path::new("model_dir"),
            "no model folder is named",
            "name one with config.json and .safetensors files",
        ));
    }
    let meta = std::fs::metadata(named).map_err(|error| absent(named, &error))?;
    if !meta.is_dir() {
        return Err(no_folder(named, &meta));
    }
    let folder = match snapshot(named)? {
        Some(snapshot) => snapshot,
        None => named.to_path_buf(),
    };
    match std::fs::symlink_metadata(folder.join("config.json")) {
        Ok(_) => refuse_adapter_beside(&folder).map(|()| folder),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(no_model(&folder)),
        Err(error) => Err(ModelFileError::Read { file: folder.join("config.json"), reason: error.to_string() }),
    }
}

/// Name under which the model in `folder` is known: `org/name` inside the hub's cache, else the folder's own name.
#[must_use]
pub fn served_name(folder: &Path) -> String {
    let own = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let cached = folder.ancestors().take(3).filter_map(own).find_map(|name| hub_name(&name));
    // A path like `.` has no last component of its own.
    let resolved = || folder.canonicalize().ok().as_deref().and_then(own);
    cached.or_else(|| own(folder)).or_else(resolved).unwrap_or_else(|| "model".to_owned())
}

/// `models--org--name` is how the hub's cache names the model `org/name`.
fn hub_name(component: &str) -> Option<String> {
    component.strip_prefix("models--").map(|name| name.replacen("--", "/", 1))
}

/// Snapshot in a folder of the hub's cache; `None` if `folder` is no such folder.
fn snapshot(folder: &Path) -> Result<Option<PathBuf>, ModelFileError> {
    let snapshots = folder.join("snapshots");
    if folder.join("config.json").exists() || !snapshots.is_dir() {
        return Ok(None);
    }
    if let Ok(commit) = std::fs::read_to_string(folder.join("refs/main")) {
        let commit = commit.trim();
        let is_plain = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric());
        let path = snapshots.join(commit);
        return match is_plain && path.is_dir() {
            true => Ok(Some(path)),
            false => {
                Err(wrong(folder, "is a folder of the hub's cache whose refs/main leads to no snapshot", DOWNLOAD))
            }
        };
    }
    let found = children(&snapshots);
    match found.as_slice() {
        [] => Err(wrong(folder, "is a folder of the hub's cache without a snapshot", DOWNLOAD)),
        [only] => Ok(Some(snapshots.join(only))),
        several => {
            let what = "is a folder of the hub's cache with several snapshots and no refs/main";
            Err(wrong(folder, what, &format!("name one of them: snapshots/{}", several.join(", snapshots/"))))
        }
    }
}

const DOWNLOAD: &str = "download the model again (`hf download ORG/NAME --local-dir DIR`) and name the folder";
const ORIGINAL: &str = "download the original model, a folder with config.json and .safetensors files (`hf download ORG/NAME --local-dir DIR`)";

/// Error for a path where nothing exists; guesses what was meant.
fn absent(named: &Path, error: &std::io::Error) -> ModelFileError {
    let text = named.to_string_lossy();
    if error.kind() != ErrorKind::NotFound && error.kind() != ErrorKind::NotADirectory {
        return ModelFileError::Read { file: named.to_path_buf(), reason: error.to_string() };
    }
    // Joining paths turns `//` into `/`, so a single slash is looked for.
    if text.contains(":/") {
        let advice = format!("nothing is downloaded when serving: {DOWNLOAD}");
        return wrong(named, "is an address, not a folder of this machine", &advice);
    }
    let parts: Vec<&str> = text.split('/').collect();
    let is_plain = |part: &&str| !part.is_empty() && *part != "." && *part != ".." && *part != "~";
    if parts.len() == 2 && parts.iter().all(is_plain) && named.is_relative() {
        let advice = format!(
            "if it is the name of a model of the hub, download it first: `hf download {text} --local-dir {}`, and name that folder",
            parts[1]
        );
        return wrong(named, "there is no such folder", &advice);
    }
    if std::fs::symlink_metadata(named).is_ok() {
        return wrong(named, "is a link that leads nowhere", "name a folder with config.json and .safetensors files");
    }
    wrong(named, "there is no such folder", "name a folder with config.json and .safetensors files")
}

/// Error for a path that is not a folder; says what it is.
fn no_folder(named: &Path, meta: &Metadata) -> ModelFileError {
    if !meta.is_file() {
        return wrong(named, "is neither a folder nor a file", "name a folder with config.json and .safetensors files");
    }
    let parent = named.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let holds_it = format!("name the folder that holds it: {}", parent.display());
    let (what, advice) = match kind_of(named) {
        Kind::LfsPointer => ("is a Git LFS pointer, not the file itself", "run `git lfs pull` and name the folder"),
        Kind::Gguf => ("is a GGUF file, the format of llama.cpp, which is not served", ORIGINAL),
        Kind::Safetensors => ("is a single weight file", holds_it.as_str()),
        Kind::Json => ("is a single JSON file", holds_it.as_str()),
        Kind::Pickle | Kind::Zip => ("is an archive or a file of Python's pickle", ORIGINAL),
        Kind::Archive => ("is an archive", "unpack it and name the folder"),
        Kind::Unknown => ("is a file", "name a folder with config.json and .safetensors files"),
    };
    wrong(named, what, advice)
}

/// Error for a folder without config.json; says what it is.
fn no_model(folder: &Path) -> ModelFileError {
    let names = children(folder);
    let has = |name: &str| names.iter().any(|found| found == name);
    let ends = |end: &str| names.iter().find(|name| name.to_lowercase().ends_with(end));
    if names.is_empty() {
        return wrong(folder, "is an empty folder", DOWNLOAD);
    }
    if has("adapter_config.json") {
        return adapter(folder);
    }
    if let Some(file) = ends(".gguf") {
        return wrong(folder, &format!("has no config.json but {file}: GGUF is the format of llama.cpp"), ORIGINAL);
    }
    if has("model_index.json") {
        return wrong(folder, "is a pipeline that makes images", "only language models are served");
    }
    if has("params.json") || ends(".pth").is_some() {
        let what = "has no config.json: it holds a model in its maker's own format (params.json)";
        return wrong(folder, what, ORIGINAL);
    }
    if names.iter().any(|name| name.starts_with("models--")) {
        let models: Vec<_> = names.iter().filter(|name| name.starts_with("models--")).cloned().collect();
        let advice = format!("name one of its folders: {}", listed(&models));
        return wrong(folder, "is the cache of the hub, not one model", &advice);
    }
    let inside: Vec<_> = names.iter().filter(|name| folder.join(name).join("config.json").exists()).cloned().collect();
    if !inside.is_empty() {
        let advice = format!("did you mean a folder inside it: {}", listed(&inside));
        return wrong(folder, "has no config.json", &advice);
    }
    wrong(folder, "has no config.json", "name a folder with config.json and .safetensors files")
}

/// Refuses a folder with a model and an adapter, because transformers would load it with the adapter.
fn refuse_adapter_beside(folder: &Path) -> Result<(), ModelFileError> {
    match folder.join("adapter_config.json").exists() {
        true => Err(adapter(folder)),
        false => Ok(()),
    }
}

fn adapter(folder: &Path) -> ModelFileError {
    let file = folder.join("adapter_config.json");
    let base = crate::Fields::read(&file).ok().flatten();
    let base = base.as_ref().and_then(|fields| fields.get("base_model_name_or_path")?.as_str().map(ToOwned::to_owned));
    let of = base.map_or_else(String::new, |base| format!(" of {base}"));
    let advice = "merge it into its base model (`merge_and_unload` of PEFT) and serve the merged folder; where it is \
                  merged already, remove adapter_config.json";
    wrong(folder, &format!("is a LoRA adapter{of} (it has adapter_config.json), not a whole model"), advice)
}

/// Sorted names in a folder, without hidden ones; a bounded number.
fn children(folder: &Path) -> Vec<String> {
    const NAMES_MAX: usize = 10_000;
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().take(NAMES_MAX).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort_unstable();
    names
}

fn listed(names: &[String]) -> String {
    const NAMES_MAX: usize = 5;
    let more = if names.len() > NAMES_MAX { ", ..." } else { "" };
    format!("{}{more}", names[..names.len().min(NAMES_MAX)].join(", "))
}

fn wrong(path: &Path, what: &str, advice: &str) -> ModelFileError {
    ModelFileError::Folder { path: path.to_path_buf(), what: what.to_owned(), advice: advice.to_owned() }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
