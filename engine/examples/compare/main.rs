//! Compares the engine with llama.cpp and with the machine's limits, in one interleaved run.
//!
//! usage: compare [shape=1.1b|134m] [rounds=5] [repeats=2] [threads=N] [cases=NAME,…] [chunk=512] [steps=32] [dir=DIR]
//!                [json=FILE] [llama_cpp=DIR] [limit_s=N] [engine.KEY=VALUE]…
//!
//! Random-weight models of the shape are made if missing, for llama.cpp as GGUF too. llama.cpp comes from `llama_cpp=`,
//! the environment variable `LLAMA_CPP` or the PATH; without it the output says so. The machine's rates are measured
//! before, between and after the two programs; if they changed, or others computed meanwhile, the sample is repeated.

mod case;
mod ceilings;
mod gguf;
mod llama_cpp;
mod load;
mod models;
mod options;
mod ours;
mod report;
mod rounds;
mod statistics;

#[path = "../shared/driver.rs"]
mod driver;
#[path = "../random_model/generate/mod.rs"]
mod generate;

use anyhow::Result;

use ceilings::Machine;
use llama_cpp::LlamaCpp;
use models::Models;
use options::Options;
use rounds::Bench;

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let peer = LlamaCpp::find(&options)?;
    if peer.is_none() {
        println!("llama.cpp is not installed (llama_cpp=DIR, LLAMA_CPP=DIR or the PATH): measuring Baton alone");
    }
    let models = Models::prepare(&options, peer.is_some())?;
    let machine = Machine::new(options.threads, options.kernel_set()?)?;
    let results = Bench { options: &options, models: &models, machine: &machine, peer: peer.as_ref() }.run()?;
    report::print(&options, &results);
    report::write_json(&options, &results)
}
