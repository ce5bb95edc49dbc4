//! Random numbers that tell one start of a process from another.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::EngineError;

/// 128 bits that no other start of any worker has.
pub(super) fn incarnation() -> Result<u128, EngineError> {
    Ok(u128::from_le_bytes(bytes()?))
}

/// Bytes from the operating system's generator, which nobody can foresee.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], EngineError> {
    const SOURCE: &str = "/dev/urandom";
    let mut bytes = [0; N];
    let read = File::open(SOURCE).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| EngineError::Read { file: Path::new(SOURCE).to_path_buf(), reason: error.to_string() })?;
    Ok(bytes)
}
