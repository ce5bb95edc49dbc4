//! A model: its shape as data, its weights, its forward pass; knows no scheduler and no sampler.

mod digest;
mod finite;
mod forward;
mod json;
mod load;
mod rope;
mod spec;
mod weights;

pub use forward::{Activations, LogitRows, Model, Pass};
pub use load::Precision;
pub use rope::{RopeScaling, RopeSpec};
pub use spec::{Architecture, AttentionBias, ModelSpec};
pub use weights::{Tensor, WeightFiles};
