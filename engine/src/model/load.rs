//! Prepares matrices from tensors in files: names, shapes, number format; knows no maths.

use std::borrow::Cow;

use half::{bf16, f16};
use kernels::{Arrangement, Dtype, KShard, KernelError, MatrixSource, Ops, VectorSource};

use super::forward::{Model, PositionWeights};
use super::projection::Projection;
use super::{ExpertCounts, ModelSpec, Part, Positions, Precision, Shelf, Tensor, WeightFiles};
use crate::EngineError;

/// How the ranks of a group share a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Every rank has the whole matrix.
    Whole,
    /// Every rank has some rows, and computes some outputs.
    Rows,
    /// Every rank has some columns, and computes a part of the sum of every output.
    Columns,
}

/// Weights to load, and how to prepare them.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Files of the model.
    pub weights: &'a WeightFiles,
    /// Number format of matrix products.
    pub precision: Precision,
    /// Where prepared matrices are found or stored.
    pub shelf: &'a Shelf,
}

impl<O: Ops> Model<O> {
    /// Prepares the weights of one part of `spec` for `ops`. `positions_max` is the longest sequence that will run.
    pub fn load(
        ops: &O,
        spec: ModelSpec,
        part: Part,
        source: Source<'_>,
        positions_max: u32,
    ) -> Result<Model<O>, EngineError> {
        let Source { weights, precision, shelf } = source;
        let prefix = spec.prefix(weights);
        let loader = Loader { ops, spec: &spec, part: &part, weights, prefix, precision, shelf };
        let layers = part.layers.clone().map(|layer| loader.layer(layer)).collect::<Result<_, _>>()?;
        let embeds = part.is_first() || (part.is_last() && loader.head_is_embedding());
        let embedding = if embeds { Some(loader.embedding()?) } else { None };
        let head = if part.is_last() && !loader.head_is_embedding() { Some(loader.head()?) } else { None };
        let norm = loader.norm(spec.architecture.tensors.norm)?;
        let positions = loader.positions(positions_max)?;
        let expert_counts = ExpertCounts::of(&spec);
        let weights_dtype = precision.name(spec.stored_dtype(weights)?);
        let narrowed = part.narrowed(&spec);
        Ok(Model { spec, part, narrowed, weights_dtype, embedding, positions, layers, norm, head, expert_counts })
    }
}

/// Finds tensors by their names in published models.
pub(super) struct Loader<'a, O: Ops> {
    ops: &'a O,
    pub(super) spec: &'a ModelSpec,
    pub(super) part: &'a Part,
    pub(super) weights: &'a WeightFiles,
    /// Prefix of the names of all tensors but the head.
    pub(super) prefix: &'static str,
    precision: Precision,
    shelf: &'a Shelf,
}

impl<O: Ops> Loader<'_, O> {
    /// The same loader, but with int8 off, for matrices that are never int8.
    pub(super) fn without_int8(&self) -> Self {
        let precision = match self.precision {
            Precision::Int8 => Precision::AsStored,
            other @ (Precision::AsStored | Precision::Converted(_)) => other,
        };
        Self { precision, ..*self }
    }

    /// True if one matrix is both embedding table and output projection.
    fn head_is_embedding(&self) -> bool {
        self.spec.tied_embeddings && self.precision != Precision::Int8
    }

    fn embedding(&self) -> Result<O::Matrix, EngineError> {
        let arrangement = if self.head_is_embedding() { Arrangement::Stacked } else { Arrangement::Table };
        let name = self.name(self.spec.architecture.tensors.embedding, "weight");
        self.matrix(&[(&name, self.spec.vocab)], self.spec.hidden, arrangement, Cut::Rows)
    }

    fn positions(&self, positions_max: u32) -> Result<PositionWeights<O>, EngineError> {
        match &self.spec.positions {
            Positions::Rope(rope) => {
                let frequencies = rope.inverse_frequencies(self.spec.head_dim);
                Ok(PositionWeights::Rope(self.ops.rope(positions_max as usize, &frequencies, 1.0)?))
            }
            Positions::Learned { offset } => {
                let name = self.name(self.spec.architecture.tensors.positions, "weight");
                let rows = self.spec.context_max + offset;
                let table = self.matrix(&[(&name, rows)], self.spec.hidden, Arrangement::Table, Cut::Whole)?;
                Ok(PositionWeights::Learned { table, offset: *offset })
            }
        }
    }

    fn head(&self) -> Result<O::Matrix, EngineError> {
        let tensors = &self.spec.architecture.tensors;
        let name = match self.spec.tied_embeddings {
            true => self.name(tensors.embedding, "weight"),
            false => format!("{}.weight", tensors.head),
        };
        self.matrix(&[(&name, self.spec.vocab)], self.spec.hidden, Arrangement::Stacked, Cut::Rows)
    }

    /// Loads matrices stacked along n, with their biases if any. A bias is added after the sum over the columns.
    pub(super) fn projection(
        &self,
        weights: &[(String, u32)],
        biases: Option<&[(String, u32)]>,
        k: u32,
        cut: Cut,
    ) -> Result<Projection<O>, EngineError> {
        let weight = self.matrix(&borrowed(weights), k, Arrangement::Stacked, cut)?;
        let bias = biases.map(|biases| self.vector(&borrowed(biases), cut)).transpose()?;
        Ok(Projection { weight, bias })
    }

    /// Loads matrices `[n, k]` stacked along n; of each, this rank's rows or columns.
    pub(super) fn matrix(
        &self,
        parts: &[(&str, u32)],
        k: u32,
        arrangement: Arrangement,
        cut: Cut,
    ) -> Result<O::Matrix, EngineError> {
        self.weights.progress().check()?;
        let arrangement = match (cut, self.part.is_shared()) {
            (Cut::Columns, true) => Arrangement::Partial(self.k_shard()),
            (Cut::Columns, false) | (Cut::Whole | Cut::Rows, _) => arrangement,
        };
        let mut name = format!("{arrangement:?} {:?} {cut:?}:", self.precision);
        parts.iter().for_each(|(part, n)| name.push_str(&format!(" {part}[{n},{k}]")));
        self.shelf.matrix(self.ops, &name, || self.packed(parts, k, arrangement, cut))
    }

    /// Packs matrices from their source, whose pages are released at once.
    fn packed(
        &self,
        parts: &[(&str, u32)],
        k: u32,
        arrangement: Arrangement,
        cut: Cut,
    ) -> Result<O::Matrix, EngineError> {
        let (mut converted, mut bytes) = (Vec::with_capacity(parts.len()), 0);
        if matches!(self.precision, Precision::AsStored | Precision::Int8) {
            let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
            self.weights.one_dtype(&names)?;
        }
        for (name, n) in parts {
            let tensor = self.weights.tensor(name, &[*n as usize, k as usize])?;
            let (tensor, rows) = self.own_rows(tensor, *n, cut);
            bytes += tensor.bytes.len() as u64;
            converted.push((rows, self.converted(tensor)));
        }
        let sources: Vec<MatrixSource<'_>> = converted
            .iter()
            .map(|(n, (bytes, dtype))| MatrixSource { bytes, dtype: *dtype, n: *n, k: k as usize })
            .collect();
        let prepared = match (self.precision, arrangement) {
            (Precision::Int8, Arrangement::Stacked | Arrangement::GateUp | Arrangement::Partial(_)) => {
                self.ops.int8_matrix(&sources, arrangement)
            }
            (Precision::Int8, Arrangement::Table) | (Precision::AsStored | Precision::Converted(_), _) => {
                self.ops.matrix(&sources, arrangement)
            }
        };
        let packed = prepared.map_err(|error| self.refused(error, parts, self.precision))?;
        parts.iter().for_each(|(name, _)| self.weights.forget(name));
        self.weights.progress().advance(bytes);
        Ok(packed)
    }

    fn k_shard(&self) -> KShard {
        KShard { index: self.part.tensor.index as usize, of: self.part.tensor.of as usize }
    }

    /// This rank's rows of a tensor of `n` rows (or elements).
    fn own_rows<'t>(&self, tensor: Tensor<'t>, n: u32, cut: Cut) -> (Tensor<'t>, usize) {
        let rows = match cut {
            Cut::Whole | Cut::Columns => 0..n,
            Cut::Rows => self.part.tensor.range(n),
        };
        let row_bytes = tensor.bytes.len() / n as usize;
        let bytes = &tensor.bytes[rows.start as usize * row_bytes..rows.end as usize * row_bytes];
        (Tensor { bytes, ..tensor }, rows.len())
    }

    /// Loads vectors end to end; of each, the elements for this rank's rows of the matrix.
    pub(super) fn vector(&self, parts: &[(&str, u32)], cut: Cut) -> Result<O::Vector, EngineError> {
        let mut sources = Vec::with_capacity(parts.len());
        for (name, n) in parts {
            let (tensor, _) = self.own_rows(self.weights.tensor(name, &[*n as usize])?, *n, cut);
            sources.push(VectorSource { bytes: tensor.bytes, dtype: tensor.dtype });
        }
        self.ops.vector(&sources).map_err(|error| self.refused(error, parts, Precision::AsStored))
    }

    /// Error of a refused matrix; names the tensor at fault, if there is one.
    fn refused(&self, error: KernelError, parts: &[(&str, u32)], precision: Precision) -> EngineError {
        match error {
            KernelError::NotFinite { part, .. } => {
                let name = parts[part].0;
                match self.weights.dtype(name) {
                    Ok(stored) => self.weights.not_finite(name, precision.of(stored)),
                    Err(error) => error,
                }
            }
            other => other.into(),
        }
    }

    fn converted<'t>(&self, tensor: Tensor<'t>) -> (Cow<'t, [u8]>, Dtype) {
        match self.precision {
            Precision::Converted(wanted) if wanted != tensor.dtype => (Cow::Owned(convert(tensor, wanted)), wanted),
            Precision::Converted(_) | Precision::AsStored | Precision::Int8 => {
                (Cow::Borrowed(tensor.bytes), tensor.dtype)
            }
        }
    }
}

fn borrowed(parts: &[(String, u32)]) -> Vec<(&str, u32)> {
    parts.iter().map(|(name, n)| (name.as_str(), *n)).collect()
}

/// Converts a tensor to another format; rounds to nearest even if that is narrower.
fn convert(tensor: Tensor<'_>, to: Dtype) -> Vec<u8> {
    let values: Vec<f32> = match tensor.dtype {
        Dtype::F32 => tensor.bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect(),
        Dtype::F16 => tensor.bytes.as_chunks().0.iter().map(|raw| f16::from_le_bytes(*raw).to_f32()).collect(),
        Dtype::Bf16 => tensor.bytes.as_chunks().0.iter().map(|raw| bf16::from_le_bytes(*raw).to_f32()).collect(),
    };
    match to {
        Dtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        Dtype::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
    }
}
