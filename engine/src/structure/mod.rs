//! Structured answers: the grammars of a worker's requests, and the masks of its running choices; knows no logits.
//!
//! Compiling a grammar and computing a mask run on threads of their own, beside the step: a grammar is compiled from
//! when its request arrives, which waits for that, a mask computed from when its choice has a token. Whoever needs a
//! result that nobody has begun computes it himself, so no choice waits for another's.

mod follower;
mod kept;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use sched::Structure;
use vocabulary::{GrammarError, Grammars, Matcher};

use self::follower::Choice;
use self::kept::{Kept, USED_BYTES_MAX};

pub(crate) use self::follower::Follower;

/// Memory of a compiled grammar beside that of its lexer: so much at least, and more for each byte of its text. A guess,
/// not measured.
const GRAMMAR_BYTES_LEAST: usize = 64 << 10;
const BYTES_PER_GRAMMAR_BYTE: usize = 32;
/// Threads that compile, so that a grammar which takes long does not hold up all others.
const COMPILING_THREADS: usize = 2;
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
    kept: Mutex<Kept>,
    compiling: OnceLock<Option<Sender<Weak<Compiled>>>>,
    masking: OnceLock<Option<Sender<Weak<Mutex<Choice>>>>>,
    /// True once the worker stops.
    stops: AtomicBool,
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
    start: OnceLock<Result<Start, GrammarError>>,
}

/// Start of a text, with what texts of this grammar have taught its lexer.
struct Start {
    matcher: Mutex<Matcher>,
    lexer_bytes: AtomicUsize,
}

impl Structures {
    pub(crate) fn new(model_dir: PathBuf) -> Structures {
        Structures {
            shared: Arc::new(Shared {
                model_dir,
                grammars: OnceLock::new(),
                kept: Mutex::default(),
                compiling: OnceLock::new(),
                masking: OnceLock::new(),
                stops: AtomicBool::new(false),
            }),
        }
    }

    /// Lets no grammar be compiled and no mask be computed any more. The last step of a worker may have many rows that
    /// wait for one, and its end waits for that step.
    pub(crate) fn stop(&self) {
        self.shared.stops.store(true, Ordering::Release);
    }

    /// Begins to compile the grammar of a request that has arrived. `None` if no thread will do so, or if what is in use
    /// takes too much memory.
    pub(crate) fn prepare(&self, structure: &Structure) -> Option<Preparing> {
        if self.kept().used_bytes() > USED_BYTES_MAX {
            return None;
        }
        let compiled = self.kept().get(&structure.grammar);
        if compiled.start.get().is_none() {
            let shared = Arc::downgrade(&self.shared);
            let sender = self.shared.compiling.get_or_init(|| {
                threads("grammars", COMPILING_THREADS, move |compiled: Arc<Compiled>| {
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
        Follower::new(self.clone(), self.kept().get(&structure.grammar), Arc::clone(structure), generated)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to compute the mask of a choice.
    fn mask_soon(&self, choice: &Arc<Mutex<Choice>>) {
        let shared = Arc::downgrade(&self.shared);
        let sender = self.shared.masking.get_or_init(|| {
            threads("masks", 1, move |choice: Arc<Mutex<Choice>>| {
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
    fn goes_on(&self) -> Result<(), GrammarError> {
        match self.stops.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(GrammarError("this worker stops".to_owned())),
        }
    }

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
    fn compile(&self, shared: &Shared) -> &Result<Start, GrammarError> {
        self.start.get_or_init(|| {
            shared.goes_on()?;
            let matcher = shared.grammars()?.compile(&self.grammar)?;
            Ok(Start { lexer_bytes: matcher.lexer_bytes().into(), matcher: Mutex::new(matcher) })
        })
    }

    /// Memory that it takes, by estimate.
    fn bytes(&self) -> usize {
        let start = self.start.get().and_then(|start| start.as_ref().ok());
        let lexer_bytes = start.map_or(0, |start| start.lexer_bytes.load(Ordering::Relaxed));
        GRAMMAR_BYTES_LEAST + self.grammar.len() * BYTES_PER_GRAMMAR_BYTE + lexer_bytes
    }

    /// Returns a matcher at the start of the text.
    fn start(&self, shared: &Shared) -> Result<Matcher, GrammarError> {
        let start = self.compile(shared).as_ref().map_err(Clone::clone)?;
        Ok(start.matcher.lock().unwrap_or_else(PoisonError::into_inner).fresh())
    }

    /// Lets later texts begin with what one has taught its lexer. That changes what masks cost, not what they allow.
    fn learn(&self, matcher: Matcher) {
        let Some(Ok(start)) = self.start.get() else { return };
        let mut known = start.matcher.lock().unwrap_or_else(PoisonError::into_inner);
        if matcher.knows_more_than(&known) {
            *known = matcher.into_start();
            start.lexer_bytes.store(known.lexer_bytes(), Ordering::Relaxed);
        }
    }
}

/// Starts threads that do `work` on what they are sent and still exists. They end with their sender. `None` if not one
/// could be started.
fn threads<T: Send + Sync + 'static>(
    name: &'static str,
    count: usize,
    work: impl Fn(Arc<T>) + Clone + Send + 'static,
) -> Option<Sender<Weak<T>>> {
    let (sender, receiver): (_, Receiver<Weak<T>>) = bounded(QUEUE_MAX);
    let started = (0..count).filter(|_| {
        let (receiver, work) = (receiver.clone(), work.clone());
        let body = move || receiver.iter().filter_map(|item| item.upgrade()).for_each(work);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        thread
            .inspect_err(|error| {
                tracing::warn!(name, %error, "a thread could not be started; structured answers are slower without it");
            })
            .is_ok()
    });
    (started.count() > 0).then_some(sender)
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
