//! A model: its shape as data, its weights, its forward pass; knows no scheduler and no sampler.

mod cache;
mod digest;
mod entry;
mod experts;
mod finite;
mod forward;
mod fused;
mod header;
mod layers;
mod load;
mod mlp;
mod part;
mod precision;
mod projection;
mod rope;
mod spec;
mod sum;
mod weights;

pub use cache::{CacheFault, CacheKey, Shelf, WeightsCache};
pub use experts::{ExpertCounts, Tally};
pub use forward::{Activations, LogitRows, Model};
pub use load::Source;
pub use part::{Grid, Part, Share};
pub use precision::Precision;
pub use rope::{RopeScaling, RopeSpec};
pub use spec::{Architecture, AttentionBias, MlpSpec, ModelSpec, Positions};
pub use weights::{Tensor, WeightFiles};
