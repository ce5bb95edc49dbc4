//! Recognises what a file is by its first bytes; knows no folder.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A text that stands for a file that was not fetched.
    LfsPointer,
    /// A model for llama.cpp.
    Gguf,
    /// Weights as Python's pickle, which runs code when it is read.
    Pickle,
    /// An archive, or weights in one (newer pickles are zip files).
    Zip,
    /// A compressed or plain archive of files.
    Archive,
    /// Weights in the safetensors format.
    Safetensors,
    /// A JSON file.
    Json,
    /// Anything else.
    Unknown,
}

/// Kind of `file`, judged by its first bytes and its name.
pub(crate) fn kind_of(file: &Path) -> Kind {
    let mut start = Vec::new();
    let read = File::open(file).and_then(|file| file.take(512).read_to_end(&mut start));
    let extension = file.extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default();
    if read.is_err() {
        return Kind::Unknown;
    }
    match start.as_slice() {
        bytes if is_lfs_pointer(bytes) => Kind::LfsPointer,
        [b'G', b'G', b'U', b'F', ..] => Kind::Gguf,
        [0x80, 2..=5, ..] => Kind::Pickle,
        [b'P', b'K', 3, 4, ..] => Kind::Zip,
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', b'z', ..] => Kind::Archive,
        bytes if bytes.get(257..262) == Some(b"ustar") => Kind::Archive,
        _ if extension == "safetensors" => Kind::Safetensors,
        _ if extension == "json" => Kind::Json,
        _ => Kind::Unknown,
    }
}

/// True if `bytes` stand for a file that Git LFS keeps elsewhere.
pub(crate) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    const POINTER_BYTES_MAX: usize = 1024;
    bytes.len() <= POINTER_BYTES_MAX && bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}
