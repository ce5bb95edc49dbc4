//! Memory that a worker needs, and the refusal to start if the machine lacks it, before any of it is allocated.

use std::path::{Path, PathBuf};

use kernels::KvGeometry;
use kernels::collective::{Segment, SegmentShape};

use super::limits::segment_shape;
use crate::EngineError;
use crate::backend::StepLimits;
use crate::model::{Grid, ModelSpec, Part};

/// Memory that a worker needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// Prepared matrices. Pages mapped from a file can be evicted, but then every step reads them from disk.
    pub(super) weights: u64,
    /// Rows of one step, logits and rotation tables of every rank, and the memory that ranks share.
    pub(super) activations: u64,
    pub(super) kv: u64,
    pub(super) kv_block: u64,
}

/// Memory left under the tightest bound.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Room {
    bytes: u64,
    /// Name of that bound.
    bound: String,
}

impl Needs {
    /// Memory that a model with so many bytes of `weights` needs on all ranks of a grid, for steps of one lane or more.
    pub(super) fn of(
        (spec, grid): (&ModelSpec, Grid),
        geometry: &KvGeometry,
        weights: u64,
        lanes: &[StepLimits],
    ) -> Needs {
        let of_rank = |rank| lanes.iter().map(move |limits| Needs::of_rank(spec, &grid.part(spec, rank), *limits));
        let ranks = (0..grid.ranks()).flat_map(of_rank);
        // Several ranks have one executor for all lanes.
        let limits = lanes[0];
        let shared = match grid {
            Grid::ALONE => 0,
            // The pages behind the longest order are never touched.
            _ => Segment::bytes(&SegmentShape { order_words_max: 0, ..segment_shape(grid, spec, limits, geometry) })
                .map_or(u64::MAX, |bytes| bytes as u64),
        };
        let activations = ranks.fold(shared, u64::saturating_add);
        Needs { weights, activations, ..Needs::of_pool(geometry) }
    }

    fn of_rank(spec: &ModelSpec, part: &Part, limits: StepLimits) -> u64 {
        let spec = part.narrowed(spec);
        let shape = spec.head_shape();
        let [hidden, vocab] = [spec.hidden, spec.vocab].map(u64::from);
        let dense = u64::from(spec.dense_width().unwrap_or(0));
        // Each row goes to several experts, each with an inner and an outer row of its own.
        let experts = spec.experts().map_or(0, |(width, routing)| routing.per_row as u64 * (u64::from(width) + hidden));
        let [qkv, attended] = [shape.qkv_cols(), shape.out_cols()].map(|columns| columns as u64);
        let packed = hidden.max(dense).max(experts).max(attended);
        let partial = if part.is_shared() { hidden } else { 0 };
        let logits = if part.is_last() { vocab.div_ceil(u64::from(part.tensor.of)) } else { 0 };
        let step = u64::from(limits.rows_max) * (hidden + qkv + attended + dense + experts + packed + partial);
        let wanted = u64::from(limits.wanted_max) * (hidden + attended + logits);
        let rotation = u64::from(limits.positions_max) * u64::from(spec.head_dim);
        (step + wanted + rotation).saturating_mul(size_of::<f32>() as u64)
    }

    /// Memory that a device without weights needs: its KV pool.
    pub(super) fn of_pool(geometry: &KvGeometry) -> Needs {
        Needs { weights: 0, activations: 0, kv: geometry.pool_bytes() as u64, kv_block: geometry.block_bytes() as u64 }
    }

    /// Refuses needs that this machine or the control groups of this process cannot meet.
    pub(super) fn require(&self) -> Result<(), EngineError> {
        match room(Path::new("/")) {
            Some(room) => self.require_in(&room),
            None => {
                tracing::warn!("/proc/meminfo cannot be read: whether memory suffices shows when it is taken");
                Ok(())
            }
        }
    }

    fn require_in(&self, room: &Room) -> Result<(), EngineError> {
        let Needs { weights, activations, kv, kv_block } = *self;
        let fixed = weights.saturating_add(activations);
        let needed = fixed.saturating_add(kv);
        let Some(missing) = needed.checked_sub(room.bytes).filter(|missing| *missing > 0) else { return Ok(()) };
        let Room { bytes: available, bound } = room;
        let short = format!("{available} are available ({bound}), {missing} are missing");
        let spare = available.saturating_sub(fixed) / kv_block * kv_block;
        if spare > 0 {
            let problem = format!(
                "makes a KV pool of {kv} bytes: with weights of {weights} and activations of {activations} bytes \
                 {needed} are needed, {short}; a pool of {spare} bytes would fit"
            );
            return Err(EngineError::Config { key: "kv_pool", problem });
        }
        Err(EngineError::Memory {
            what: "a worker",
            bytes: needed,
            reason: format!(
                "weights take {weights}, activations {activations}, the KV pool {kv} bytes; {short}. engine.dtype, \
                 engine.step_tokens_max and engine.kv_pool change what is needed"
            ),
        })
    }
}

/// Memory that the machine and every control group above this process leave. The page cache counts as free, because the
/// system drops it when memory is needed.
fn room(root: &Path) -> Option<Room> {
    let available = number(&root.join("proc/meminfo"), "MemAvailable:")?.saturating_mul(1024);
    let machine = Room { bytes: available, bound: "MemAvailable of the machine".to_owned() };
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let bounds = groups.lines().filter_map(|line| Controller::of(root, line)).flat_map(|group| group.rooms());
    bounds.chain([machine]).min_by_key(|room| room.bytes)
}

/// Memory controller of one hierarchy of control groups, and the group of this process in it.
struct Controller {
    base: PathBuf,
    group: PathBuf,
    limit: &'static str,
    usage: &'static str,
    /// Keys of memory.stat that count pages of files.
    files: [&'static str; 2],
}

impl Controller {
    /// From a line of /proc/self/cgroup: `number:controllers:path`, where version 2 names no controllers.
    fn of(root: &Path, line: &str) -> Option<Controller> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let group = PathBuf::from(path.trim_start_matches('/'));
        if controllers.is_empty() {
            let files = ["inactive_file", "active_file"];
            let base = root.join("sys/fs/cgroup");
            return Some(Controller { base, group, limit: "memory.max", usage: "memory.current", files });
        }
        controllers.split(',').any(|controller| controller == "memory").then(|| Controller {
            base: root.join("sys/fs/cgroup/memory"),
            group,
            limit: "memory.limit_in_bytes",
            usage: "memory.usage_in_bytes",
            files: ["total_inactive_file", "total_active_file"],
        })
    }

    /// Bounds of the group and its ancestors; a group without a limit, or that this process cannot see, sets none.
    fn rooms(&self) -> Vec<Room> {
        self.group.ancestors().filter_map(|group| self.room(&self.base.join(group))).collect()
    }

    fn room(&self, directory: &Path) -> Option<Room> {
        let read = |file: &str| std::fs::read_to_string(directory.join(file)).ok()?.trim().parse::<u64>().ok();
        let (limit, usage) = (read(self.limit)?, read(self.usage)?);
        let files = self.files.iter().filter_map(|key| number(&directory.join("memory.stat"), key)).sum();
        let bytes = limit.saturating_sub(usage.saturating_sub(files));
        Some(Room { bytes, bound: directory.join(self.limit).display().to_string() })
    }
}

/// Number after the word `key` at the beginning of a line.
fn number(file: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(key)).then(|| words.next()?.parse().ok()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Blame;

    const NEEDS: Needs = Needs { weights: 1000, activations: 100, kv: 500, kv_block: 50 };

    fn in_room(bytes: u64) -> Result<(), EngineError> {
        NEEDS.require_in(&Room { bytes, bound: "memory.max".to_owned() })
    }

    #[test]
    fn what_is_missing_is_named_and_blamed() {
        in_room(1600).unwrap();
        in_room(u64::MAX).unwrap();
        let error = in_room(1599).unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert_eq!(
            error.to_string(),
            "engine.kv_pool makes a KV pool of 500 bytes: with weights of 1000 and activations of 100 bytes 1600 are \
             needed, 1599 are available (memory.max), 1 are missing; a pool of 450 bytes would fit"
        );
        assert_eq!(in_room(1150).unwrap_err().blame(), Blame::Config);
        let error = in_room(1149).unwrap_err();
        assert_eq!(error.blame(), Blame::Machine);
        assert_eq!(
            error.to_string(),
            "cannot allocate 1600 bytes for a worker: weights take 1000, activations 100, the KV pool 500 bytes; \
             1149 are available (memory.max), 451 are missing. engine.dtype, engine.step_tokens_max and \
             engine.kv_pool change what is needed"
        );
        let endless = Needs { kv: u64::MAX, ..NEEDS };
        assert!(endless.require_in(&Room { bytes: 5000, bound: String::new() }).is_err());
    }

    #[test]
    fn every_rank_and_what_ranks_share_count() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families/mixtral");
        let spec = ModelSpec::read(&fixture).unwrap();
        let config = crate::Config { model_dir: fixture, ..crate::Config::default() };
        let geometry = crate::start::geometry::of_model(&config, &spec, kernels::Dtype::F32).unwrap();
        let limits = StepLimits { rows_max: 512, wanted_max: 64, positions_max: 2048 };
        let of = |tensor, stages| Needs::of((&spec, Grid { tensor, stages }), &geometry, 1000, &[limits]).activations;
        // Sums of the two experts of each row: once for the rows that change ranks and twice for each rank.
        let shared = |ranks: u64| (1 + 2 * ranks) * 512 * 2 * u64::from(spec.hidden) * 4;
        let hidden = 512 * u64::from(spec.hidden) * 4;
        for (tensor, stages) in [(2, 1), (1, 2), (2, 2)] {
            let ranks = u64::from(tensor * stages);
            let least = shared(ranks) + ranks * hidden + of(1, 1) / u64::from(tensor);
            assert!(
                of(tensor, stages) > least,
                "tp {tensor}, pp {stages}: {} is less than {least}",
                of(tensor, stages)
            );
        }
    }

    /// A machine: the files that this module reads.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, files: &[(&str, &str)]) -> Machine {
            let root = std::env::temp_dir().join(format!("baton-machine-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Machine(root)
        }

        fn room(&self) -> Option<(u64, String)> {
            let prefix = format!("{}/", self.0.display());
            room(&self.0).map(|room| (room.bytes, room.bound.replace(&prefix, "")))
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _left_for_the_system = std::fs::remove_dir_all(&self.0);
        }
    }

    const MEMORY: (&str, &str) = ("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    4000 kB\n");

    #[test]
    fn the_machine_itself_is_a_bound() {
        assert_eq!(Machine::new("bare", &[MEMORY]).room(), Some((4_096_000, "MemAvailable of the machine".to_owned())));
        assert_eq!(Machine::new("none", &[("proc/x", "")]).room(), None);
        assert!(room(Path::new("/")).is_some_and(|room| room.bytes > 0), "this machine has memory left");
    }

    #[test]
    fn the_tightest_control_group_is_the_bound() {
        let groups = [
            MEMORY,
            ("proc/self/cgroup", "0::/pods/one\n"),
            ("sys/fs/cgroup/pods/one/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/one/memory.current", "5\n"),
            ("sys/fs/cgroup/pods/memory.max", "3000000\n"),
            ("sys/fs/cgroup/pods/memory.current", "1000000\n"),
            ("sys/fs/cgroup/pods/memory.stat", "anon 7\ninactive_file 300\nactive_file 20\n"),
        ];
        let expected = (2_000_320, "sys/fs/cgroup/pods/memory.max".to_owned());
        assert_eq!(Machine::new("version-2", &groups).room(), Some(expected));
        let groups = [
            MEMORY,
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:hugetlb,memory:/one\n0::/\n"),
            ("sys/fs/cgroup/memory/one/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/one/memory.usage_in_bytes", "2500\n"),
            ("sys/fs/cgroup/memory/one/memory.stat", "total_inactive_file 400\ntotal_active_file 300\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "8000\n"),
        ];
        let expected = (200, "sys/fs/cgroup/memory/one/memory.limit_in_bytes".to_owned());
        assert_eq!(Machine::new("version-1", &groups).room(), Some(expected));
    }
}
