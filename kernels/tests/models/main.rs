//! The lock-free parts of the host under loom: the shipped source files, run in every order of their threads and with
//! every value that a load may see. Knows nothing of the use of the parts.
//!
//! `LOOM_MAX_PREEMPTIONS` is how often a thread may be interrupted (default: each model's own number, the short form; 3
//! for all takes minutes), `LOOM_MAX_DURATION` the seconds after which a model gives up. Arguments name the models to
//! run, as `cargo test -p kernels --test models -- sleeper`.
//!
//! Loom cannot show all: a read-modify-write always sees the newest value, whatever its ordering, and no load is done
//! before a store above it. Loom remembers only the last access to an atomic, so it leaves out some orders. Time stands
//! still and futexes are imitated (`sync.rs`).

// A test without the harness by which clippy recognises tests.
#![allow(clippy::expect_used, clippy::panic)]
// loom's threads are one thread, and the gate and the sleeper are tested alone and inside the pool.
#![allow(clippy::arc_with_non_send_sync, clippy::duplicate_mod)]

// Names that the included files import from their crate.
use collective::Ops;
use kernels::{KernelError, memory};

mod cell;
mod collective;
mod pool;
mod sync;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Name, preemptions of the short form, and the function that loom runs in every order.
type Model = (&'static str, usize, fn());

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    for model in pool::MODELS.iter().chain(&collective::MODELS).filter(|(name, ..)| chosen(name)) {
        check(*model);
    }
}

fn check((name, preemptions, model): Model) {
    let mut builder = loom::model::Builder::new();
    let bound = builder.preemption_bound.unwrap_or(preemptions);
    builder.preemption_bound = Some(bound);
    builder.max_branches = 20_000;
    builder.checkpoint_interval = 1000;
    let limit = builder.max_duration;
    let (began, runs) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&runs);
    eprintln!("model {name}");
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        sync::begin();
        model();
    });
    let (runs, took) = (runs.load(Ordering::Relaxed), began.elapsed());
    let all = if limit.is_some_and(|limit| took >= limit) { "not all" } else { "all" };
    println!("model {name}: {runs} orders, {all} with {bound} preemptions, {:.1} s", took.as_secs_f64());
}
