//! Structured answers: the grammars of a worker's requests, and the masks of its running choices; knows no logits.
//!
//! Compiling a grammar and computing a mask run on threads of their own, beside the step: a grammar is compiled from
//! when its request arrives, which waits for that, a mask computed from when its choice has a token. Whoever needs a
//! result that nobody has begun computes it himself, so no choice waits for another's.

mod follower;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use sched::Structure;
use vocabulary::{GrammarError, Grammars, Matcher};

use self::follower::Choice;

pub(crate) use self::follower::Follower;

/// Compiled grammars that are kept for later requests.
const KEPT_MAX: usize = 64;
/// Results that may wait for a thread; one that finds no place is computed when it is needed.
const QUEUE_MAX: usize = 256;

/// Grammars of one worker. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Structures {
    shared: Arc<Shared>,
}

struct Shared {
    model_dir: PathBuf,
    /// Read at the first request with a structure: most workers never see one.
    grammars: OnceLock<Result<Grammars, GrammarError>>,
    /// The most recently used last.
    recent: Mutex<VecDeque<Arc<Compiled>>>,
    compiling: OnceLock<Option<Sender<Weak<Compiled>>>>,
    masking: OnceLock<Option<Sender<Weak<Mutex<Choice>>>>>,
}

/// A grammar that a thread compiles.
#[derive(Clone)]
pub(crate) struct Preparing(Arc<Compiled>);

impl Preparing {
    /// Returns true once it is compiled, or found not to be valid.
    pub(crate) fn is_over(&self) -> bool {
        self.0.start.get().is_some()
    }
}

struct Compiled {
    grammar: Arc<str>,
    /// Matcher at the start of the text.
    start: OnceLock<Result<Mutex<Matcher>, GrammarError>>,
}

impl Structures {
    pub(crate) fn new(model_dir: PathBuf) -> Structures {
        Structures {
            shared: Arc::new(Shared {
                model_dir,
                grammars: OnceLock::new(),
                recent: Mutex::default(),
                compiling: OnceLock::new(),
                masking: OnceLock::new(),
            }),
        }
    }

    /// Begins to compile the grammar of a request that has arrived. `None` if no thread will do so.
    pub(crate) fn prepare(&self, structure: &Structure) -> Option<Preparing> {
        let compiled = self.compiled(&structure.grammar);
        if compiled.start.get().is_none() {
            let shared = Arc::downgrade(&self.shared);
            let sender = self.shared.compiling.get_or_init(|| {
                thread("grammars", move |compiled: Arc<Compiled>| {
                    if let Some(shared) = shared.upgrade() {
                        compiled.compile(&shared);
                    }
                })
            });
            if hand_over(sender.as_ref(), Arc::downgrade(&compiled)) == Taken::No {
                return None;
            }
        }
        Some(Preparing(compiled))
    }

    /// Follows the grammar of a choice that has `generated` tokens.
    pub(crate) fn follow(&self, structure: &Arc<Structure>, generated: &[sched::TokenId]) -> Follower {
        Follower::new(self.clone(), self.compiled(&structure.grammar), Arc::clone(structure), generated)
    }

    fn compiled(&self, grammar: &Arc<str>) -> Arc<Compiled> {
        let mut recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.iter().rposition(|compiled| compiled.grammar == *grammar);
        let compiled = known
            .and_then(|index| recent.remove(index))
            .unwrap_or_else(|| Arc::new(Compiled { grammar: Arc::clone(grammar), start: OnceLock::new() }));
        recent.push_back(Arc::clone(&compiled));
        if recent.len() > KEPT_MAX {
            recent.pop_front();
        }
        compiled
    }

    /// Begins to compute the mask of a choice.
    fn mask_soon(&self, choice: &Arc<Mutex<Choice>>) {
        let shared = Arc::downgrade(&self.shared);
        let sender = self.shared.masking.get_or_init(|| {
            thread("masks", move |choice: Arc<Mutex<Choice>>| {
                if let Some(shared) = shared.upgrade() {
                    choice.lock().unwrap_or_else(PoisonError::into_inner).compute_next(&shared);
                }
            })
        });
        // Without a place the mask is computed by whoever needs it.
        let _ = hand_over(sender.as_ref(), Arc::downgrade(choice));
    }
}

impl std::fmt::Debug for Structures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Structures").field("model_dir", &self.shared.model_dir).finish_non_exhaustive()
    }
}

impl Shared {
    fn grammars(&self) -> Result<&Grammars, GrammarError> {
        let read = || {
            Grammars::read(&self.model_dir)
                .map_err(|error| GrammarError(format!("this worker follows no grammars: {error}")))
        };
        self.grammars.get_or_init(read).as_ref().map_err(Clone::clone)
    }
}

impl Compiled {
    /// Compiles the grammar, unless that is done.
    fn compile(&self, shared: &Shared) -> &Result<Mutex<Matcher>, GrammarError> {
        self.start.get_or_init(|| shared.grammars()?.compile(&self.grammar).map(Mutex::new))
    }

    /// Returns a matcher at the start of the text.
    fn start(&self, shared: &Shared) -> Result<Matcher, GrammarError> {
        let start = self.compile(shared).as_ref().map_err(Clone::clone)?;
        Ok(start.lock().unwrap_or_else(PoisonError::into_inner).fresh())
    }
}

/// Starts a thread that does `work` on what it is sent and still exists. It ends with its sender.
fn thread<T: Send + Sync + 'static>(
    name: &'static str,
    work: impl Fn(Arc<T>) + Send + 'static,
) -> Option<Sender<Weak<T>>> {
    let (sender, receiver): (_, Receiver<Weak<T>>) = bounded(QUEUE_MAX);
    let body = move || receiver.iter().filter_map(|item| item.upgrade()).for_each(work);
    match std::thread::Builder::new().name(name.to_owned()).spawn(body) {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(name, %error, "a thread could not be started; structured answers are slower without it");
            None
        }
    }
}

/// Whether a thread has taken a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    No,
}

fn hand_over<T>(sender: Option<&Sender<Weak<T>>>, item: Weak<T>) -> Taken {
    match sender.map(|sender| sender.try_send(item)) {
        Some(Ok(())) => Taken::Yes,
        None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => Taken::No,
    }
}
