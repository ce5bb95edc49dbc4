//! Part of a model that a rank holds: some layers, and of each layer some heads and some of the MLP. Pure arithmetic.

use std::ops::Range;

use super::{MlpSpec, ModelSpec};
use crate::EngineError;

/// Cut of a model over ranks: `tensor` ranks share each layer, and `stages` groups of them follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Ranks that share a layer: 1, 2, 4 or 8.
    pub tensor: u32,
    /// Pipeline stages: groups of consecutive layers.
    pub stages: u32,
}

/// One of `of` shares of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Number of this share, from 0.
    pub index: u32,
    /// Number of shares.
    pub of: u32,
}

/// Part of a model that one rank holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The rank's share of every layer.
    pub tensor: Share,
    /// The rank's layers, as numbered in the model.
    pub layers: Range<u32>,
    /// Layers of the whole model.
    pub layers_total: u32,
}

impl Grid {
    /// A single rank that holds everything.
    pub const ALONE: Grid = Grid { tensor: 1, stages: 1 };

    /// Number of ranks.
    #[must_use]
    pub fn ranks(self) -> u32 {
        self.tensor * self.stages
    }

    /// Ranks of a stage, tensor rank 0 first.
    #[must_use]
    pub fn of_stage(self, stage: u32) -> Range<u32> {
        stage * self.tensor..(stage + 1) * self.tensor
    }

    /// Part of rank `rank`; the tensor ranks of a stage are numbered consecutively.
    #[must_use]
    pub fn part(self, spec: &ModelSpec, rank: u32) -> Part {
        let (stage, index) = (rank / self.tensor, rank % self.tensor);
        let layers = Share { index: stage, of: self.stages }.range(spec.layers);
        Part { tensor: Share { index, of: self.tensor }, layers, layers_total: spec.layers }
    }

    /// Checks that the model can be cut like this; errors name the key and the sizes that do not divide.
    pub fn check(self, spec: &ModelSpec) -> Result<(), EngineError> {
        let wrong = |key: &'static str, problem: String| Err(EngineError::Config { key, problem });
        let tp = self.tensor;
        if !matches!(tp, 1 | 2 | 4 | 8) {
            return wrong("tp", format!("must be 1, 2, 4 or 8, found {tp}"));
        }
        for (what, heads) in [("attention", spec.heads), ("kv", spec.kv_heads)] {
            if !heads.is_multiple_of(tp) {
                return wrong("tp", format!("is {tp}, which does not divide the model's {heads} {what} heads"));
            }
        }
        let widths = [spec.dense_width(), spec.experts().map(|(width, _)| width)];
        for width in widths.into_iter().flatten() {
            if tp > 1 && !width.is_multiple_of(16 * tp) {
                let problem = format!("is {tp}, which needs an MLP width that is a multiple of {}", 16 * tp);
                return wrong("tp", format!("{problem}; the model's is {width}"));
            }
        }
        if self.stages == 0 || self.stages > spec.layers {
            let problem = format!("must lie between 1 and the model's {} layers, found {}", spec.layers, self.stages);
            return wrong("pp", problem);
        }
        Ok(())
    }
}

impl Share {
    /// The only share.
    pub const WHOLE: Share = Share { index: 0, of: 1 };

    /// Range of this share in `total` things.
    #[must_use]
    pub fn range(self, total: u32) -> Range<u32> {
        let end = |index: u32| (u64::from(index) * u64::from(total) / u64::from(self.of)) as u32;
        end(self.index)..end(self.index + 1)
    }
}

impl Part {
    /// The whole model.
    #[must_use]
    pub fn whole(spec: &ModelSpec) -> Part {
        Grid::ALONE.part(spec, 0)
    }

    /// True if the part has the first layer, so it embeds.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.layers.start == 0
    }

    /// True if the part has the last layer, so it makes logits.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.layers.end == self.layers_total
    }

    /// True if other ranks hold other shares of its layers.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.tensor.of > 1
    }

    /// Vocabulary entries that the rank embeds and makes logits of.
    #[must_use]
    pub fn vocab(&self, spec: &ModelSpec) -> Range<u32> {
        self.tensor.range(spec.vocab)
    }

    /// KV heads that the rank stores.
    #[must_use]
    pub fn kv_heads(&self, spec: &ModelSpec) -> Range<u32> {
        self.tensor.range(spec.kv_heads)
    }

    /// The model in this rank's sizes: fewer heads, narrower MLPs. Vocabulary and layer count stay whole.
    #[must_use]
    pub fn narrowed(&self, spec: &ModelSpec) -> ModelSpec {
        let of = self.tensor.of;
        let narrow = |mlp: &MlpSpec| match *mlp {
            MlpSpec::Gated { width } => MlpSpec::Gated { width: width / of },
            MlpSpec::Relu { width } => MlpSpec::Relu { width: width / of },
            MlpSpec::Experts { width, routing } => MlpSpec::Experts { width: width / of, routing },
        };
        ModelSpec {
            heads: spec.heads / of,
            kv_heads: spec.kv_heads / of,
            mlps: spec.mlps.iter().map(narrow).collect(),
            ..spec.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for (total, of) in [(7, 3), (32_000, 8), (151_936, 4), (4, 4), (1, 1)] {
            let ranges: Vec<_> = (0..of).map(|index| Share { index, of }.range(total)).collect();
            assert_eq!(ranges[0].start, 0);
            assert_eq!(ranges.last().unwrap().end, total);
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "{ranges:?}");
        }
    }

    #[test]
    fn stages_have_consecutive_ranks() {
        let grid = Grid { tensor: 2, stages: 3 };
        assert_eq!((grid.ranks(), grid.of_stage(1)), (6, 2..4));
    }
}
