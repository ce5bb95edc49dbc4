//! NVIDIA GPUs through the CUDA driver, which is looked for at run time; knows no kernel and no model.
//!
//! Nothing here is linked against CUDA, so that every build starts on every machine. [`Driver::open`] says whether there
//! is a driver and a GPU; everything else is made from what it returns. A function that the installed driver lacks is an
//! error with its name, never a panic, and a wait for the device ends with an error at its limit.
//!
//! A [`Context`] is bound to the thread that made it, and so is everything made from it (`!Send`).

mod blas;
mod call;
mod context;
mod device;
mod error;
mod ipc;
mod memory;
mod module;
mod partition;
mod stream;

pub use blas::{BlasLt, Candidate, Product, ProductPlan};
pub use context::Context;
pub use device::{ComputeCapability, CudaVersion, Device, DeviceAttribute, Driver};
pub use error::CudaError;
pub use ipc::{IpcHandle, PeerBytes};
pub use memory::{DeviceBytes, DeviceRange, PinnedBytes};
pub use module::{Argument, Function, Grid, Module};
pub use partition::{Coscheduling, Partition, SmResource};
pub use stream::{Event, Stream};
