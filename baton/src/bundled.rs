//! The bundled model: part of the binary, written once as an ordinary model directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tracing::warn;
use xxhash_rust::xxh3::Xxh3;

use crate::serve::RunDirectory;

const NAME: &str = "baton-demo";

const FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../models/demo/config.json")),
    ("generation_config.json", include_bytes!("../../models/demo/generation_config.json")),
    ("model.safetensors", include_bytes!("../../models/demo/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../models/demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../models/demo/tokenizer_config.json")),
];

/// The bundled model as a directory; keep it as long as the model is used.
#[derive(Debug)]
pub struct Bundled {
    /// Path of the directory.
    pub path: PathBuf,
    /// Directory of this run alone, removed on drop, if the user's cache cannot be used.
    _for_this_run: Option<RunDirectory>,
}

/// Writes the bundled model to the user's cache, or for this run alone if that fails, and logs that.
pub fn lay_out() -> Result<Bundled> {
    let problem = match in_cache() {
        Ok(path) => return Ok(Bundled { path, _for_this_run: None }),
        Err(problem) => problem,
    };
    let filled = |directory: &Path| write_to(&directory.join(NAME));
    let directory = RunDirectory::create_filled(filled)
        .with_context(|| format!("laying out the bundled model, not in the user's cache either ({problem:#})"))?;
    let path = directory.path.join(NAME);
    warn!(reason = format!("{problem:#}"), directory = %path.display(), "the bundled model is laid out for this run only");
    Ok(Bundled { path, _for_this_run: Some(directory) })
}

/// Returns the directory in the user's cache, whose path has the digest of its contents, so another version of the
/// binary never reads it. A missing one is written beside its place and renamed, so nobody sees it incomplete.
fn in_cache() -> Result<PathBuf> {
    let place = cache_root()?.join(format!("{:016x}", digest())).join(NAME);
    if is_complete(&place) {
        return Ok(place);
    }
    let draft = write_draft(&place)?;
    if fs::rename(&draft, &place).is_ok() {
        return Ok(place);
    }
    // Another process's complete directory serves as well; an incomplete one is removed.
    if !is_complete(&place) {
        fs::remove_dir_all(&place).with_context(|| format!("removing the incomplete {}", place.display()))?;
        return fs::rename(&draft, &place)
            .map(|()| place.clone())
            .with_context(|| format!("laying out the bundled model at {}", place.display()));
    }
    fs::remove_dir_all(&draft).context("removing our draft").map(|()| place)
}

fn write_draft(place: &Path) -> Result<PathBuf> {
    let parent = place.parent().context("the cache directory has no parent")?;
    let draft = parent.join(format!(".{NAME}.{}", std::process::id()));
    let written = write_to(&draft);
    if written.is_err() {
        // An incomplete draft on a full disk is of no use; failing to remove it is the lesser problem.
        let _ = fs::remove_dir_all(&draft);
    }
    written.map(|()| draft)
}

fn write_to(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    for (file, bytes) in FILES {
        let path = directory.join(file);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn is_complete(place: &Path) -> bool {
    FILES.iter().all(|(file, bytes)| has_length(&place.join(file), bytes.len()))
}

fn digest() -> u64 {
    let mut hasher = Xxh3::new();
    for (name, bytes) in FILES {
        hasher.update(name.as_bytes());
        hasher.update(bytes);
    }
    hasher.digest()
}

fn has_length(path: &Path, bytes: usize) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() == bytes as u64)
}

/// Accepts absolute paths only, as for packed weights.
fn cache_root() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    match caches {
        Some(caches) => Ok(caches.join("baton").join("models")),
        None => bail!("neither XDG_CACHE_HOME nor HOME names a directory"),
    }
}
