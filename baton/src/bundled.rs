//! The bundled model: carried inside the binary and laid out once as an ordinary model directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xxhash_rust::xxh3::Xxh3;

const NAME: &str = "baton-demo";

const FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../models/demo/config.json")),
    ("generation_config.json", include_bytes!("../../models/demo/generation_config.json")),
    ("model.safetensors", include_bytes!("../../models/demo/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../models/demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../models/demo/tokenizer_config.json")),
];

/// The directory of the bundled model, written if this content is not there yet.
///
/// Its name carries the content's digest, so another version of the binary never reads this one's files. It is written
/// beside its place and renamed, so nobody ever sees half of it; what is complete is never removed.
pub fn directory() -> Result<PathBuf> {
    let place = cache_root()?.join(format!("{:016x}", digest())).join(NAME);
    if is_complete(&place) {
        return Ok(place);
    }
    let draft = write_draft(&place)?;
    if fs::rename(&draft, &place).is_ok() {
        return Ok(place);
    }
    // Something is in the way. Somebody else's complete directory is as good as ours; anything else is rubbish.
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
    fs::create_dir_all(&draft).with_context(|| format!("creating {}", draft.display()))?;
    for (file, bytes) in FILES {
        fs::write(draft.join(file), bytes).with_context(|| format!("writing {file} to {}", draft.display()))?;
    }
    Ok(draft)
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

fn cache_root() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".cache"),
        // A directory that anybody could have prepared, like one in /tmp, is no place to read weights from.
        _ => {
            bail!("neither XDG_CACHE_HOME nor HOME says where to lay out the bundled model; name one with --model DIR")
        }
    };
    let root = base.join("baton").join("models");
    fs::create_dir_all(&root)
        .with_context(|| format!("creating {}; name another model with --model DIR", root.display()))?;
    Ok(root)
}
