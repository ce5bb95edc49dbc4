//! Packed weights in files that all processes of a host map; knows no architecture and no layout of a matrix.
//!
//! One file holds every prepared matrix of one model, for one kernel layout, number format and part of the model. Its
//! name is its key, which covers everything that decides the bytes. The first process that needs a file packs it while
//! others wait; all map it, so a host holds the weights once. A file with its final name never changes.

mod file;
mod fingerprint;
mod pages;
mod place;
mod sections;
mod shelf;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernels::{Ops, Pool};
use xxhash_rust::xxh3::xxh3_128;

use crate::{EngineError, Progress};
use file::Stored;
use place::{Claim, Place};
pub use shelf::Shelf;

/// Most packings of one file; it is packed again if it is damaged as soon as it is written.
const ATTEMPTS: usize = 3;
/// Most waits for other processes that packed the same weights and gave up.
const WAITS_MAX: usize = 64;
/// Longest wait for another process that packs the same weights, while its file does not grow.
const PACKING_MAX: Duration = Duration::from_secs(600);

/// Location of packed weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightsCache {
    /// No files: each process packs into its own memory.
    Off,
    /// The user's cache directory. If it cannot be used, each process packs into its own memory and logs that.
    Default(Option<PathBuf>),
    /// A directory that the configuration names; it must be usable.
    Named(PathBuf),
}

/// Reason why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheFault {
    /// There is neither `XDG_CACHE_HOME` nor `HOME`.
    #[error("neither XDG_CACHE_HOME nor HOME names a directory for packed weights")]
    NoDirectory,
    /// A file or directory cannot be made, read or written.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// File or directory.
        path: PathBuf,
        /// Error of the system.
        problem: String,
    },
    /// The disk lacks space.
    #[error("{}: {needed_bytes} bytes of packed weights do not fit, {missing_bytes} are missing", path.display())]
    Full {
        /// Directory or file that should hold the packed weights.
        path: PathBuf,
        /// Bytes that the file takes.
        needed_bytes: u64,
        /// Bytes that the disk lacks.
        missing_bytes: u64,
    },
    /// Another process holds the file and does not finish.
    #[error("{}: another process has been packing these weights for {waited_s} s", path.display())]
    Busy {
        /// File that the other process packs.
        path: PathBuf,
        /// Seconds of waiting.
        waited_s: u64,
    },
    /// A file is not what its name promises.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
}

/// Key of a file of packed weights.
#[derive(Debug, Clone, Copy)]
pub struct CacheKey {
    /// Hash of everything that decides the bytes of the matrices.
    pub(super) digest: u128,
    /// Approximate size of all matrices, in bytes.
    pub(super) bytes: u64,
}

impl CacheKey {
    /// Key of `weights` (a digest that covers which matrices there are) in the layout of `ops`, for the number format
    /// and part of the model that `part` names. `None` if `ops` keeps no matrix that can be mapped.
    pub fn new<O: Ops>(ops: &O, weights: u128, part: &str, bytes: u64) -> Result<Option<CacheKey>, EngineError> {
        let layout = fingerprint::of(ops)?;
        let version = env!("CARGO_PKG_VERSION");
        let digest = |layout: u128| xxh3_128(format!("{version} {layout:032x} {weights:032x} {part}").as_bytes());
        Ok(layout.map(|layout| CacheKey { digest: digest(layout), bytes }))
    }
}

impl WeightsCache {
    /// Location that the configuration key `weights_cache` asks for; `variable` reads the environment.
    pub fn of_key(key: &str, variable: impl Fn(&str) -> Option<PathBuf>) -> WeightsCache {
        match key {
            "off" => WeightsCache::Off,
            "" => {
                let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
                let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
                WeightsCache::Default(caches.map(|caches| caches.join("baton")))
            }
            named => WeightsCache::Named(PathBuf::from(named)),
        }
    }

    /// Runs `load` with a shelf of packed weights. `load` may run twice: once to pack, once to map what was packed.
    pub fn load<T>(
        &self,
        key: Option<CacheKey>,
        (pool, progress): (&Pool, &Progress),
        load: impl Fn(&Shelf) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Some(key) = key else { return load(&Shelf::private()) };
        let outcome = match self {
            WeightsCache::Off => return load(&Shelf::private()),
            WeightsCache::Default(None) => Err(CacheFault::NoDirectory.into()),
            WeightsCache::Default(Some(directory)) | WeightsCache::Named(directory) => {
                in_directory(directory, key, (pool, progress), &load)
            }
        };
        match outcome {
            Err(EngineError::WeightsCache(fault)) => {
                self.may_go_on_without(&fault)?;
                tracing::warn!(reason = %fault, "packed weights are not shared: they take this process's own memory");
                load(&Shelf::private())
            }
            other => other,
        }
    }

    /// Accepts every fault but an unusable directory that the user named; lack of space or time is no reason to stop.
    fn may_go_on_without(&self, fault: &CacheFault) -> Result<(), EngineError> {
        match (self, fault) {
            (WeightsCache::Named(named), CacheFault::Unusable { .. } | CacheFault::Damaged { .. }) => {
                let problem = format!("is {:?}, which cannot be used: {fault}", named.display().to_string());
                Err(EngineError::Config { key: "weights_cache", problem })
            }
            _ => Ok(()),
        }
    }
}

impl From<CacheFault> for EngineError {
    fn from(fault: CacheFault) -> EngineError {
        EngineError::WeightsCache(fault)
    }
}

/// Maps the file of `key`, and packs it first if it is missing or damaged.
fn in_directory<T>(
    directory: &Path,
    key: CacheKey,
    (pool, progress): (&Pool, &Progress),
    load: &impl Fn(&Shelf) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let place = Place::new(directory, key)?;
    let (mut attempts, mut waits, began) = (0, 0, Instant::now());
    while attempts < ATTEMPTS {
        progress.check()?;
        match found(&place, key, (pool, progress))? {
            Some(stored) => match load(&mapped(stored)) {
                Err(EngineError::WeightsCache(CacheFault::Damaged { path, problem })) => {
                    tracing::warn!(file = %path.display(), problem, "packed weights are packed again");
                    place.discard()?;
                    attempts += 1;
                }
                other => return other,
            },
            None => match place.claim(PACKING_MAX, progress)? {
                // The previous holder of the claim may have completed the file since we looked for it.
                Some(_) if matches!(Stored::open(place.file(), key, (pool, progress)), Ok(Some(_))) => {}
                Some(claim) => {
                    pack(&place, claim, key, load)?;
                    attempts += 1;
                }
                // Another process held it, and has completed the file or given up.
                None if waits < WAITS_MAX => waits += 1,
                None => {
                    let path = place.file().to_path_buf();
                    return Err(CacheFault::Busy { path, waited_s: began.elapsed().as_secs() }.into());
                }
            },
        }
    }
    let problem = "is found damaged as soon as it is written".to_owned();
    Err(CacheFault::Damaged { path: place.file().to_path_buf(), problem }.into())
}

/// The file of `key`, if it exists and is sound.
fn found(place: &Place, key: CacheKey, watched: (&Pool, &Progress)) -> Result<Option<Stored>, CacheFault> {
    match Stored::open(place.file(), key, watched) {
        Err(CacheFault::Damaged { path, problem }) => {
            tracing::warn!(file = %path.display(), problem, "packed weights are damaged and packed again");
            Ok(None)
        }
        other => other,
    }
}

fn mapped(stored: Stored) -> Shelf {
    pages::report(&stored);
    Shelf::mapped(stored)
}

/// Writes the file for which the claim is held.
fn pack<T>(
    place: &Place,
    claim: Claim,
    key: CacheKey,
    load: &impl Fn(&Shelf) -> Result<T, EngineError>,
) -> Result<(), EngineError> {
    place.sweep();
    place.require_space(key.bytes)?;
    let began = Instant::now();
    let shelf = Shelf::packing(claim.writer(key)?);
    // Dropped: this process maps the file like every other process.
    drop(load(&shelf)?);
    let bytes = shelf.finish()?;
    claim.publish()?;
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::debug!(file = %place.file().display(), bytes, took_ms, "weights packed");
    Ok(())
}
