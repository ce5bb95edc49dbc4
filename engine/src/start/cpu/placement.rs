//! Cores and number of threads that a rank computes with; knows no model.

use std::ops::Range;
use std::thread::available_parallelism;

use kernels::{KernelError, Placement};

use crate::model::Share;
use crate::{Config, EngineError};

/// Threads of one tensor rank: its share of the configured cores or threads, at least one thread. Pipeline stages take
/// turns, so they share threads. Ranks that outnumber the cores are not pinned.
pub(super) fn of_rank(config: &Config, tensor: Share) -> Result<Placement, EngineError> {
    let own = |count: usize| -> Range<usize> {
        let range = tensor.range(count as u32);
        range.start as usize..range.end as usize
    };
    if !config.cores.is_empty() {
        let cores = &config.cores[own(config.cores.len())];
        let outnumbered = config.cores.len() < tensor.of as usize;
        return Ok(if outnumbered { Placement::Floating(1) } else { Placement::Cores(cores.to_vec()) });
    }
    let threads = if config.threads > 0 { config.threads } else { cores_of_machine()? };
    Ok(Placement::Floating(own(threads).len().max(1)))
}

/// True if so many tensor ranks can compute at the same time.
pub(super) fn have_own_cores(tensor: u32) -> bool {
    available_parallelism().is_ok_and(|cores| cores.get() >= tensor as usize)
}

/// Error of threads that could not be placed; blames the configuration if it names cores.
pub(in crate::start) fn unplaced(config: &Config, error: KernelError) -> EngineError {
    match config.cores.is_empty() {
        true => EngineError::Kernels(error),
        false => EngineError::Config { key: "cores", problem: format!("is {:?}: {error}", config.cores) },
    }
}

fn cores_of_machine() -> Result<usize, EngineError> {
    let cores = available_parallelism().map_err(|error| EngineError::Config {
        key: "threads",
        problem: format!("is 0, and the number of cores is unknown: {error}"),
    })?;
    Ok(cores.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_out_cores_and_threads() {
        let share = |index, of| Share { index, of };
        let with_cores =
            |cores: &[usize], tensor| of_rank(&Config { cores: cores.to_vec(), ..Config::default() }, tensor).unwrap();
        assert_eq!(with_cores(&[4, 5, 6, 7], share(1, 2)), Placement::Cores(vec![6, 7]));
        assert_eq!(with_cores(&[0, 1], share(1, 2)), Placement::Cores(vec![1]));
        assert_eq!(with_cores(&[0, 1], share(0, 1)), Placement::Cores(vec![0, 1]));
        assert_eq!(with_cores(&[0, 1], share(3, 4)), Placement::Floating(1));
        let with_threads = |threads, tensor| of_rank(&Config { threads, ..Config::default() }, tensor).unwrap();
        assert_eq!(with_threads(4, share(0, 2)), Placement::Floating(2));
        assert_eq!(with_threads(1, share(1, 4)), Placement::Floating(1));
    }
}
