//! Decisions of the scheduler, told as scripts, by subject.

mod ahead;
mod batching;
mod beats;
mod choices;
mod course;
mod damage;
mod ending;
mod giving;
mod intake;
mod lanes;
mod learning;
mod meeting;
mod preemption;
mod prefix;
mod scheduling;
mod scores;
mod streaming;
mod taking;
