//! One process packs, all map; nothing of a damaged file is ever served.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use kernels::{Arrangement, CpuOps, Dtype, KernelSet, MatrixSource, Ops, Placement, Pool};

use super::file::{Stored, VERSION};
use super::place::Place;
use super::*;

const KEY: CacheKey = CacheKey { digest: 0xfeed, bytes: 1 << 20 };
const FILE: &str = "0000000000000000000000000000feed.v1.packed";
const PARTIAL: &str = "0000000000000000000000000000feed.v1.partial";
const SHAPE: (usize, usize) = (64, 48);
/// Environment variable of the process that a test kills: the directory that it packs into.
const VICTIM: &str = "BATON_TEST_PACKS_AND_WAITS_IN";

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("baton-weights-cache-{}-{name}", std::process::id()));
        let _may_not_exist = std::fs::remove_dir_all(&path);
        Directory(path)
    }

    fn cache(&self) -> WeightsCache {
        WeightsCache::Named(self.0.clone())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _left_for_the_system = std::fs::remove_dir_all(&self.0);
    }
}

fn pool() -> Arc<Pool> {
    Arc::new(Pool::new(&Placement::Floating(1)).unwrap())
}

fn source(seed: u8) -> Vec<u8> {
    (0..SHAPE.0 * SHAPE.1).flat_map(|index| (index as f32 + f32::from(seed)).to_le_bytes()).collect()
}

/// A model of three matrices, two of one name.
fn model(shelf: &Shelf, ops: &CpuOps) -> Result<Vec<Vec<u8>>, EngineError> {
    [("a", 1), ("b", 2), ("a", 3)]
        .iter()
        .map(|(name, seed)| {
            let bytes = source(*seed);
            let source = MatrixSource { bytes: &bytes, dtype: Dtype::F32, n: SHAPE.0, k: SHAPE.1 };
            let matrix = shelf.matrix(ops, name, || Ok(ops.matrix(&[source], Arrangement::Stacked)?))?;
            Ok(ops.image(&matrix).unwrap().sections.concat())
        })
        .collect()
}

/// Loads the model and returns the shelves that were used.
fn loaded(cache: &WeightsCache, key: CacheKey) -> Result<Vec<&'static str>, EngineError> {
    let pool = pool();
    let ops = CpuOps::new(Arc::clone(&pool), KernelSet::best()).unwrap();
    let shelves = Mutex::new(Vec::new());
    let found = cache.load(Some(key), (&pool, &Progress::default()), |shelf| {
        shelves.lock().unwrap().push(shelf.label());
        model(shelf, &ops)
    })?;
    assert_eq!(found, model(&Shelf::private(), &ops)?, "the same words, wherever they come from");
    Ok(shelves.into_inner().unwrap())
}

#[test]
fn the_first_one_packs_and_all_map() {
    let directory = Directory::new("first");
    assert_eq!(loaded(&directory.cache(), KEY).unwrap(), ["packing", "mapped"]);
    assert_eq!(directory.names(), [FILE]);
    assert_eq!(loaded(&directory.cache(), KEY).unwrap(), ["mapped"]);
    let other = CacheKey { digest: 0xbeef, ..KEY };
    assert_eq!(loaded(&directory.cache(), other).unwrap(), ["packing", "mapped"]);
    assert_eq!(directory.names().len(), 2);
}

#[test]
fn of_many_at_once_exactly_one_packs() {
    for round in 0..20 {
        let directory = Directory::new(&format!("race-{round}"));
        let shelves: Vec<&str> = std::thread::scope(|scope| {
            let load = || loaded(&directory.cache(), KEY).unwrap();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(shelves.iter().filter(|label| **label == "packing").count(), 1, "{shelves:?}");
        assert_eq!(shelves.iter().filter(|label| **label == "mapped").count(), 4, "{shelves:?}");
        assert_eq!(directory.names(), [FILE]);
    }
}

#[test]
fn no_damaged_file_is_served() {
    let directory = Directory::new("damaged");
    loaded(&directory.cache(), KEY).unwrap();
    let sound = std::fs::read(directory.path(FILE)).unwrap();
    let (index, first) = (sound.len() - 5, 64 << 10);
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [
        ("its start is foreign", flipped(0)),
        ("another version", flipped(8)),
        ("another key", flipped(16)),
        ("another length", flipped(57)),
        ("the first word of a matrix", flipped(first)),
        ("the last matrix", flipped(first + 2 * (64 << 10) + 4 * SHAPE.0 * SHAPE.1 - 1)),
        ("the index", flipped(index)),
        ("a byte too few", sound[..sound.len() - 1].to_vec()),
        ("a byte too many", [sound.as_slice(), b"x"].concat()),
        ("half a header", sound[..40].to_vec()),
        ("empty", Vec::new()),
        ("a text", b"not what you think".to_vec()),
    ];
    for (what, bytes) in damaged {
        std::fs::remove_file(directory.path(FILE)).unwrap();
        std::fs::write(directory.path(FILE), bytes).unwrap();
        assert_eq!(loaded(&directory.cache(), KEY).unwrap(), ["packing", "mapped"], "{what}");
        assert!(std::fs::read(directory.path(FILE)).unwrap() == sound, "{what}: packed again");
    }
    assert_eq!(directory.names(), [FILE]);
}

#[test]
fn a_file_under_a_wrong_name_or_without_a_matrix_is_packed_again() {
    let directory = Directory::new("wrong");
    let other = CacheKey { digest: 0xbeef, ..KEY };
    loaded(&directory.cache(), other).unwrap();
    std::fs::copy(directory.path(&FILE.replace("feed", "beef")), directory.path(FILE)).unwrap();
    assert_eq!(loaded(&directory.cache(), KEY).unwrap(), ["packing", "mapped"]);

    let pool = pool();
    let less = |shelf: &Shelf| {
        let ops = CpuOps::new(Arc::clone(&pool), KernelSet::best())?;
        let bytes = source(9);
        let source = MatrixSource { bytes: &bytes, dtype: Dtype::F32, n: SHAPE.0, k: SHAPE.1 };
        shelf.matrix(&ops, "less", || Ok(ops.matrix(&[source], Arrangement::Stacked)?)).map(drop)
    };
    let third = CacheKey { digest: 0xcafe, ..KEY };
    directory.cache().load(Some(third), (&pool, &Progress::default()), less).unwrap();
    assert_eq!(loaded(&directory.cache(), third).unwrap(), ["mapped", "packing", "mapped"]);
}

#[test]
fn without_a_cache_every_process_packs() {
    let directory = Directory::new("none");
    assert_eq!(loaded(&WeightsCache::Off, KEY).unwrap(), ["private"]);
    assert_eq!(loaded(&WeightsCache::Default(None), KEY).unwrap(), ["private"]);
    let nowhere = PathBuf::from("/proc/nowhere");
    assert_eq!(loaded(&WeightsCache::Default(Some(nowhere.clone())), KEY).unwrap(), ["private"]);
    let error = loaded(&WeightsCache::Named(nowhere), KEY).unwrap_err();
    assert_eq!(error.blame(), crate::Blame::Config);
    let text = error.to_string();
    assert!(
        text.starts_with("engine.weights_cache is \"/proc/nowhere\", which cannot be used: /proc/nowhere: "),
        "{text}"
    );
    // More than the disk has: loading goes on without the cache, and no file is begun.
    let huge = CacheKey { bytes: u64::MAX, ..KEY };
    assert_eq!(loaded(&directory.cache(), huge).unwrap(), ["private"]);
    assert!(directory.names().is_empty());
}

#[test]
fn what_is_missing_is_named() {
    let directory = Directory::new("full");
    let place = Place::new(&directory.0, KEY).unwrap();
    place.require_space(1).unwrap();
    let text = place.require_space(u64::MAX).unwrap_err().to_string();
    assert!(text.contains("18446744073709551615 bytes of packed weights do not fit, 184467"), "{text}");
}

#[test]
fn weights_that_are_refused_leave_nothing() {
    let directory = Directory::new("refused");
    let pool = pool();
    let refused = directory.cache().load(Some(KEY), (&pool, &Progress::default()), |shelf| {
        let ops = CpuOps::new(Arc::clone(&pool), KernelSet::best())?;
        model(shelf, &ops)?;
        Err::<(), _>(EngineError::Plan("not these weights".to_owned()))
    });
    assert_eq!(refused.unwrap_err().to_string(), "step plan: not these weights");
    assert!(directory.names().is_empty());
}

#[test]
fn a_claim_is_held_by_one_and_waited_for_within_bounds() {
    let directory = Directory::new("claim");
    let place = Place::new(&directory.0, KEY).unwrap();
    let claim = place.claim(Duration::ZERO, &Progress::default()).unwrap().unwrap();
    let busy = place.claim(Duration::from_millis(50), &Progress::default()).map(drop).unwrap_err();
    assert!(busy.to_string().contains("another process has been packing these weights for 0 s"), "{busy}");
    // A process that waits looks again when the holder gives up or completes the file.
    let (publish, given_up) = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| place.claim(Duration::from_secs(60), &Progress::default()).map(|claim| claim.is_some()));
        std::thread::sleep(Duration::from_millis(50));
        drop(claim);
        let given_up = waiting.join().unwrap();
        let claim = place.claim(Duration::ZERO, &Progress::default()).unwrap().unwrap();
        let waiting =
            scope.spawn(|| place.claim(Duration::from_secs(60), &Progress::default()).map(|claim| claim.is_some()));
        std::thread::sleep(Duration::from_millis(50));
        claim.publish().unwrap();
        (waiting.join().unwrap(), given_up)
    });
    assert!(!given_up.unwrap() && !publish.unwrap());
    assert_eq!(directory.names(), [FILE]);
}

/// Found by trying: a link in a directory that others may write to led to a file that was then overwritten.
#[test]
fn what_is_no_file_is_neither_written_nor_waited_for() {
    let directory = Directory::new("foreign");
    let place = Place::new(&directory.0, KEY).unwrap();
    let precious = directory.path("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, directory.path(PARTIAL)).unwrap();
    assert!(place.claim(Duration::ZERO, &Progress::default()).is_err());
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    std::fs::remove_file(directory.path(PARTIAL)).unwrap();
    assert!(place.claim(Duration::ZERO, &Progress::default()).unwrap().is_some());
    let pipe = Command::new("mkfifo").arg(directory.path(FILE)).status().unwrap();
    assert!(pipe.success());
    let opened = Stored::open(&directory.path(FILE), KEY, (&pool(), &Progress::default()));
    assert!(matches!(opened, Err(CacheFault::Unusable { .. })));
}

#[test]
fn what_nobody_uses_is_removed() {
    let directory = Directory::new("sweep");
    let place = Place::new(&directory.0, KEY).unwrap();
    let old = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    let file = |name: &str, modified: SystemTime| {
        let file = std::fs::File::create(directory.path(name)).unwrap();
        file.set_modified(modified).unwrap();
        file
    };
    let key = |digit: char| digit.to_string().repeat(32);
    let kept = [format!("{}.v{VERSION}.packed", key('1')), format!("{}.v{VERSION}.partial", key('2'))];
    let gone = [
        format!("{}.v0.packed", key('3')),
        format!("{}.v{VERSION}.packed", key('4')),
        format!("{}.v{VERSION}.partial", key('5')),
    ];
    let foreign = ["notes.v1.packed".to_owned(), format!("{}.v{}.packed", key('6'), VERSION + 1), "x".to_owned()];
    kept.iter().for_each(|name| drop(file(name, SystemTime::now())));
    gone.iter().skip(1).for_each(|name| drop(file(name, old)));
    drop(file(&gone[0], SystemTime::now()));
    drop(file(&foreign[0], old));
    drop(file(&foreign[1], SystemTime::now()));
    drop(file(&foreign[2], old));
    let locked = format!("{}.v{VERSION}.partial", key('7'));
    let writer = file(&locked, old);
    writer.lock().unwrap();
    place.sweep();
    let mut expected = [&kept[..], &foreign[..], &[locked]].concat();
    expected.sort();
    assert_eq!(directory.names(), expected);
}

/// Not a test: the process that `a_killed_packer_leaves_nothing_that_is_served` kills.
#[test]
fn packs_half_and_waits() {
    let Some(directory) = std::env::var_os(VICTIM) else { return };
    let pool = pool();
    let ops = CpuOps::new(Arc::clone(&pool), KernelSet::best()).unwrap();
    let outcome = WeightsCache::Named(directory.into()).load(Some(KEY), (&pool, &Progress::default()), |shelf| {
        model(shelf, &ops)?;
        println!("packed");
        std::thread::sleep(Duration::from_secs(60));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_killed_packer_leaves_nothing_that_is_served() {
    let directory = Directory::new("killed");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "model::cache::tests::packs_half_and_waits", "--nocapture"])
        .env(VICTIM, &directory.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let has_packed = lines.map_while(Result::ok).any(|line| line.ends_with("packed"));
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(has_packed, "the victim packs before it is killed");
    assert_eq!(directory.names(), [PARTIAL]);
    assert_eq!(loaded(&directory.cache(), KEY).unwrap(), ["packing", "mapped"]);
    assert_eq!(directory.names(), [FILE]);
}

#[test]
fn the_key_says_where() {
    let of = |key: &str, variables: &[(&str, &str)]| {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        WeightsCache::of_key(key, variable)
    };
    let default = |path: &str| WeightsCache::Default(Some(Path::new(path).to_path_buf()));
    assert_eq!(of("off", &[]), WeightsCache::Off);
    assert_eq!(of("/data/packed", &[("HOME", "/home/a")]), WeightsCache::Named("/data/packed".into()));
    assert_eq!(of("", &[("HOME", "/home/a")]), default("/home/a/.cache/baton"));
    assert_eq!(of("", &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/caches")]), default("/caches/baton"));
    assert_eq!(of("", &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative")]), default("/home/a/.cache/baton"));
    assert_eq!(of("", &[]), WeightsCache::Default(None));
}
