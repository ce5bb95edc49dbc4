//! Partitions of the SMs for two phases: steps of their sizes, cost, overlap of both, and cost of a switch between
//! them.

use std::rc::Rc;
use std::time::Instant;

use kernels::cuda::{Argument, Coscheduling, CudaError, Event, Function, Grid, Module, Partition, SmResource, Stream};
use serde_json::{Value, json};

use super::bandwidth::filled;
use super::{Bench, Failure};
use crate::ptx::BASIC;
use crate::samples::Samples;
use crate::value::{or_error, rounded};

const ROUNDS: usize = 5;
/// Bound on the numbers of SMs of any device.
const SM_NUMBERS: usize = 4096;
/// Steps of a chain; even, so that an alternating chain ends in the partition in which it began.
const STEPS: usize = 200;
/// Length of a step: long against the host's cost of queueing it, so that the device never waits for the host.
const STEP_S: f64 = 50e-6;
const SIDE_BY_SIDE_S: f64 = 2e-3;
const NOTE_S: f64 = 20e-6;

pub(super) fn measure(bench: &Bench) -> Result<Value, Failure> {
    let all = SmResource::of(bench.context.device())?;
    let probe = Probe::new(bench)?;
    Ok(json!({
        "sm_count": all.count(),
        "group_min_sms": all.group_min(),
        "group_step_sms": all.group_step(),
        "splits": splits(&all, Coscheduling::Kept),
        "splits_ignoring_coscheduling": splits(&all, Coscheduling::Ignored),
        "lifecycle": or_error(lifecycle(&probe, &all)),
        "placement": or_error(placement(&probe, &all)),
        "side_by_side": or_error(side_by_side(&probe, &all)),
        "switching": or_error(switching(&probe, &all)),
    }))
}

/// Answer to each request for a group of at least n SMs, n = 1 to all.
fn splits(all: &SmResource, coscheduling: Coscheduling) -> Value {
    let (mut groups, mut rests, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for asked in 1..=all.count() {
        match all.split(asked, coscheduling) {
            Ok((group, _)) if groups.last() == Some(&group.count()) => {}
            Ok((group, rest)) => {
                groups.push(group.count());
                rests.push(rest.count());
            }
            Err(_) => refused.push(asked),
        }
    }
    json!({"group_sms": groups, "rest_sms": rests, "refused": refused})
}

/// Partitions of about half of the SMs and the rest, with a stream each.
struct Pair {
    partitions: [Rc<Partition>; 2],
    streams: [Stream; 2],
}

impl Pair {
    fn new(bench: &Bench, all: &SmResource) -> Result<Pair, CudaError> {
        let (group, rest) = all.split(all.count() / 2, Coscheduling::Kept)?;
        let partitions = [Partition::new(&bench.context, group)?, Partition::new(&bench.context, rest)?];
        let streams = [partitions[0].stream()?, partitions[1].stream()?];
        Ok(Pair { partitions, streams })
    }

    fn sms(&self) -> [u32; 2] {
        [self.partitions[0].sms(), self.partitions[1].sms()]
    }
}

struct Probe<'a> {
    bench: &'a Bench,
    spin: Function,
    note_sm: Function,
    cycles_per_s: f64,
}

impl<'a> Probe<'a> {
    fn new(bench: &'a Bench) -> Result<Probe<'a>, Failure> {
        let module = Module::from_ptx(&bench.context, BASIC)?;
        let (spin, note_sm) = (module.function("spin")?, module.function("note_sm")?);
        let mut probe = Probe { bench, spin, note_sm, cycles_per_s: 1e9 };
        // No attribute tells the real clock of the SMs: measure it by a spin of 20 million cycles.
        let cycles = 20_000_000;
        bench.seconds_in(&bench.stream, || probe.spin(&bench.stream, 1, cycles))?;
        probe.cycles_per_s =
            cycles as f64 / bench.seconds_in(&bench.stream, || probe.spin(&bench.stream, 1, cycles))?;
        Ok(probe)
    }

    fn cycles(&self, seconds: f64) -> u64 {
        (self.cycles_per_s * seconds) as u64
    }

    fn spin(&self, stream: &Stream, blocks: u32, cycles: u64) -> Result<(), CudaError> {
        let grid = Grid { blocks, threads_per_block: 32 };
        // SAFETY: the argument is spin's, which touches no memory.
        unsafe { self.spin.launch(stream, grid, &[Argument::U64(cycles)]) }
    }

    fn sms_seen(&self, stream: &Stream, sms: u32) -> Result<Vec<usize>, Failure> {
        let seen = filled(self.bench, SM_NUMBERS * 4, 0)?;
        let grid = Grid { blocks: sms * 4, threads_per_block: 1024 };
        let arguments = [Argument::U64(seen.range().address()), Argument::U64(self.cycles(NOTE_S))];
        // SAFETY: the arguments are note_sm's; `seen` has a word for every SM number; the stream is waited for below,
        // and until then nothing else uses `seen`.
        unsafe { self.note_sm.launch(stream, grid, &arguments) }?;
        stream.finish("noting SM numbers", self.bench.limit)?;
        let words = seen.read_words(SM_NUMBERS)?;
        Ok(words.into_iter().enumerate().filter(|(_, word)| *word != 0).map(|(number, _)| number).collect())
    }
}

/// Cost of making a pair, of its first kernels, and of ending it.
fn lifecycle(probe: &Probe<'_>, all: &SmResource) -> Result<Value, Failure> {
    let (mut launches, mut ends) = (Vec::new(), Vec::new());
    let mut once = || -> Result<f64, Failure> {
        let began = Instant::now();
        let pair = Pair::new(probe.bench, all)?;
        let made_s = began.elapsed().as_secs_f64();
        let began = Instant::now();
        for stream in &pair.streams {
            probe.spin(stream, 1, 0)?;
        }
        for stream in &pair.streams {
            stream.finish("the first kernel of a partition", probe.bench.limit)?;
        }
        launches.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        drop(pair);
        ends.push(began.elapsed().as_secs_f64());
        Ok(made_s)
    };
    let first = once()?;
    let later = Samples::take(ROUNDS, &mut once)?;
    let ms = |samples: Samples| samples.map(|seconds| seconds * 1e3).to_json();
    Ok(json!({
        "make_first_pair_ms": rounded(first * 1e3),
        "make_pair_ms": ms(later),
        "first_kernels_ms": ms(Samples::from(launches)),
        "end_pair_ms": ms(Samples::from(ends)),
    }))
}

/// Tests that kernels stay on the SMs of their partition. SM numbers may be virtual; the driver does not say.
fn placement(probe: &Probe<'_>, all: &SmResource) -> Result<Value, Failure> {
    let pair = Pair::new(probe.bench, all)?;
    let [first_sms, second_sms] = pair.sms();
    let first = probe.sms_seen(&pair.streams[0], first_sms)?;
    let second = probe.sms_seen(&pair.streams[1], second_sms)?;
    let whole = probe.sms_seen(&probe.bench.stream, all.count())?;
    let both = first.iter().filter(|number| second.contains(number)).count();
    Ok(json!({
        "sms": [first_sms, second_sms],
        "sm_numbers_seen": [first.len(), second.len()],
        "sm_numbers_seen_in_both": both,
        "sm_numbers_seen_without_partition": whole.len(),
    }))
}

/// Tests that kernels of both partitions run at the same time: hardware queues may run them in turn.
fn side_by_side(probe: &Probe<'_>, all: &SmResource) -> Result<Value, Failure> {
    let bench = probe.bench;
    let pair = Pair::new(bench, all)?;
    let ([first, second], sms) = (&pair.streams, pair.sms());
    let cycles = probe.cycles(SIDE_BY_SIDE_S);
    let alone = |stream: &Stream, blocks| {
        Samples::take(ROUNDS, || bench.seconds_in(stream, || probe.spin(stream, blocks, cycles)))
    };
    let (first_alone, second_alone) = (alone(first, sms[0])?, alone(second, sms[1])?);
    let (started, ended) = (Event::untimed(&bench.context)?, Event::untimed(&bench.context)?);
    let together = Samples::take(ROUNDS, || {
        bench.seconds_in(first, || {
            started.record(first)?;
            second.wait_for(&started)?;
            probe.spin(first, sms[0], cycles)?;
            probe.spin(second, sms[1], cycles)?;
            ended.record(second)?;
            first.wait_for(&ended)
        })
    })?;
    let ms = |samples: &Samples| samples.map(|seconds| seconds * 1e3).to_json();
    Ok(json!({
        "first_alone_ms": ms(&first_alone),
        "second_alone_ms": ms(&second_alone),
        "together_ms": ms(&together),
    }))
}

/// Times a chain of equal steps in one partition, and one that changes partition at every step, where each step waits
/// for the last by an event. The difference is the device's cost of a change.
fn switching(probe: &Probe<'_>, all: &SmResource) -> Result<Value, Failure> {
    let pair = Pair::new(probe.bench, all)?;
    let events = (0..STEPS).map(|_| Event::untimed(&probe.bench.context)).collect::<Result<Vec<_>, _>>()?;
    let staying = chain(probe, &pair, |_| Ok(0))?;
    let changing = chain(probe, &pair, |step| {
        let (from, to) = (&pair.streams[step % 2], &pair.streams[(step + 1) % 2]);
        events[step].record(from)?;
        to.wait_for(&events[step])?;
        Ok((step + 1) % 2)
    })?;
    Ok(json!({
        "steps": STEPS,
        "staying_step_us": staying.step_us.to_json(),
        "changing_step_us": changing.step_us.to_json(),
        "change_us": rounded(changing.step_us.median() - staying.step_us.median()),
        "staying_queue_us": staying.queue_us.to_json(),
        "changing_queue_us": changing.queue_us.to_json(),
    }))
}

struct Chain {
    /// Device time of a step.
    step_us: Samples,
    /// Host time to queue a step.
    queue_us: Samples,
}

/// Runs `STEPS` kernels; `after(step)` returns the index of the next stream and orders the two streams.
fn chain(probe: &Probe<'_>, pair: &Pair, after: impl Fn(usize) -> Result<usize, CudaError>) -> Result<Chain, Failure> {
    let cycles = probe.cycles(STEP_S);
    let us_per_step = 1e6 / STEPS as f64;
    let mut queued = Vec::new();
    let step_s = Samples::take(ROUNDS, || {
        probe.bench.seconds_in(&pair.streams[0], || {
            let began = Instant::now();
            let mut at = 0;
            for step in 0..STEPS {
                probe.spin(&pair.streams[at], 1, cycles)?;
                at = after(step)?;
            }
            queued.push(began.elapsed().as_secs_f64() * us_per_step);
            Ok(())
        })
    })?;
    Ok(Chain { step_us: step_s.map(|seconds| seconds * us_per_step), queue_us: Samples::from(queued) })
}
