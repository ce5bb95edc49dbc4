//! Finds the weight files of a model folder; knows no tensor.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::kinds::{Kind, kind_of};
use crate::{Fields, ModelFileError};

const ONE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Weight files, ordered by name: `model.safetensors`, or the files in `model.safetensors.index.json`. Without any, the
/// error says which other files there are, and what to do.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, ModelFileError> {
    let index = Fields::read(&folder.join(INDEX))?;
    let files = match index {
        Some(index) => shards(folder, &index)?,
        None if folder.join(ONE).symlink_metadata().is_ok() => vec![folder.join(ONE)],
        None => return Err(none(folder)),
    };
    files.iter().try_for_each(|file| require_whole(file))?;
    Ok(files)
}

fn shards(folder: &Path, index: &Fields) -> Result<Vec<PathBuf>, ModelFileError> {
    const KEY: &str = "weight_map";
    let map = index.object(KEY)?.ok_or_else(|| index.problem(KEY, "is missing"))?;
    let names: BTreeSet<String> = map.distinct_texts()?.into_iter().collect();
    if names.is_empty() {
        return Err(index.problem(KEY, "names no file"));
    }
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\']) || name.is_empty()) {
        return Err(index.problem(KEY, format!("names {name:?}, which is not a plain file name")));
    }
    let missing: Vec<&String> = names.iter().filter(|name| folder.join(name).symlink_metadata().is_err()).collect();
    if let Some(first) = missing.first() {
        let count = format!("{} of {} files", missing.len(), names.len());
        let problem = format!("names {first}, which is not there ({count} are missing): the download is incomplete");
        return Err(index.problem(KEY, problem));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Refuses anything but a plain file with weights.
fn require_whole(file: &Path) -> Result<(), ModelFileError> {
    let problem = |problem: &str| Err(ModelFileError::File { file: file.to_path_buf(), problem: problem.to_owned() });
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            problem("is a link to a file that does not exist: the download is incomplete")
        }
        Err(error) => Err(ModelFileError::Read { file: file.to_path_buf(), reason: error.to_string() }),
        Ok(meta) if !meta.is_file() => problem("must be a file, found something else"),
        Ok(_) => match kind_of(file) {
            Kind::LfsPointer => problem("is a Git LFS pointer, not the weights: run `git lfs pull` in the folder"),
            Kind::Gguf => problem("is a GGUF file with another name, which is not served"),
            Kind::Pickle | Kind::Zip | Kind::Archive => {
                problem("is no .safetensors file: convert it, do not rename it")
            }
            Kind::Safetensors | Kind::Json | Kind::Unknown => Ok(()),
        },
    }
}

/// Error for a folder without `model.safetensors`; says what it has instead.
fn none(folder: &Path) -> ModelFileError {
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| {
            entries.flatten().take(10_000).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    let ends = |end: &str| names.iter().filter(|name| name.ends_with(end)).min();
    let convert = "convert it: load it with transformers and `save_pretrained(DIR)`, which writes model.safetensors";
    let (what, advice) = if let Some(file) = ends(".gguf") {
        (format!("has {file} but no model.safetensors: GGUF is the format of llama.cpp"), "take the original model")
    } else if let Some(file) = ends(".bin").filter(|name| name.starts_with("pytorch_model")) {
        (
            format!(
                "has {file} but no model.safetensors: files of Python's pickle are not read, for they can run code"
            ),
            convert,
        )
    } else if let Some(file) = ends(".pth").or_else(|| ends(".pt")).or_else(|| ends(".ckpt")) {
        (
            format!(
                "has {file} but no model.safetensors: files of Python's pickle are not read, for they can run code"
            ),
            convert,
        )
    } else if let Some(file) = ends(".msgpack").or_else(|| ends(".h5")).or_else(|| ends(".onnx")) {
        (format!("has {file} but no model.safetensors"), convert)
    } else if let Some(file) = ends(".safetensors") {
        let advice = "one file must be called model.safetensors; several need model.safetensors.index.json beside them";
        (format!("has {file}, but neither model.safetensors nor model.safetensors.index.json"), advice)
    } else {
        let advice = "download the model again (`hf download ORG/NAME --local-dir DIR`)";
        ("has no weights: neither model.safetensors nor model.safetensors.index.json".to_owned(), advice)
    };
    ModelFileError::Folder { path: folder.to_path_buf(), what, advice: advice.to_owned() }
}
