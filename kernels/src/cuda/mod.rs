//! NVIDIA GPUs through the CUDA driver, which is looked for at run time; knows no kernel and no model.
//!
//! Nothing is linked against CUDA, so every build starts on every machine. [`Driver::open`] says whether there is a
//! driver and a GPU; all else is made from its result. A function that the installed driver lacks is an error with its
//! name, never a panic, and a wait for the device ends with an error at its limit.
//!
//! A [`Context`] is bound to the thread that made it, and so are all objects made from it (`!Send`).

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
