//! Heavy work off the threads that serve connections, in lanes by size, so that large texts never hold up small ones.

use std::sync::Arc;
use std::time::Duration;

use sched::{Failure, FailureKind};
use tokio::sync::Semaphore;

use super::App;
use super::room::Room;
use crate::openai::ApiError;
use crate::relief::Relief;
use crate::text::{Effort, Wanted};

/// Body sizes up to which work counts as small, and as middling.
const SMALL_BYTES: usize = 8 << 10;
const MIDDLING_BYTES: usize = 128 << 10;

/// Permits for heavy work. Every lane has its own threads; the system shares the cores among them, so small work has
/// the larger part of a machine however much large work there is.
#[derive(Debug)]
pub(crate) struct Lanes {
    small: Arc<Semaphore>,
    middling: Arc<Semaphore>,
    large: Arc<Semaphore>,
    relief: Relief,
}

impl Lanes {
    pub(crate) fn new(cores: usize, relief: Relief) -> Lanes {
        let lane = |turns: usize| Arc::new(Semaphore::new(turns));
        Lanes { small: lane(cores), middling: lane(cores.div_ceil(2)), large: lane(1), relief }
    }

    fn of(&self, bytes: usize) -> &Arc<Semaphore> {
        match bytes {
            ..=SMALL_BYTES => &self.small,
            _ if bytes <= MIDDLING_BYTES => &self.middling,
            _ => &self.large,
        }
    }
}

/// Runs `task` for a request of `bytes` bytes when its turn comes. The turn and `kept` are held until the work ends,
/// even if the client leaves. Work for a client that has left does not begin, or stops at the next check.
pub(super) async fn work<K: Send + 'static, T: Send + 'static>(
    app: &Arc<App>,
    bytes: usize,
    kept: K,
    task: impl FnOnce(&App, Room<'_>) -> T + Send + 'static,
) -> Result<(T, K), ApiError> {
    let wanted = Wanted::default();
    let _waiting = wanted.waiting();
    let turn = Arc::clone(app.lanes.of(bytes)).acquire_owned().await.map_err(|error| internal(&error))?;
    let shared = Arc::clone(app);
    let running = tokio::task::spawn_blocking(move || {
        let limits = &shared.config.limits;
        let cpu_max = Duration::from_millis(limits.text_cpu_ms_max);
        let effort = Effort::begin(wanted.clone(), cpu_max, usize::MAX, limits.unbroken_bytes_max);
        let (context_tokens, answer_bytes_max) = (shared.context_tokens(), limits.answer_bytes_max);
        let room = Room { context_tokens, answer_bytes_max, effort: &effort };
        let done = wanted.is_wanted().then(|| task(&shared, room));
        if bytes > MIDDLING_BYTES {
            shared.lanes.relief.due();
        }
        drop(turn);
        done.map(|done| (done, kept))
    });
    let done = running.await.map_err(|error| internal(&error))?;
    done.ok_or_else(|| internal(&"nobody waits for it"))
}

fn internal(what: &dyn std::fmt::Display) -> ApiError {
    ApiError::from(Failure::new(FailureKind::Internal, format!("working on a request failed: {what}")))
}
