//! From tensors in files to prepared matrices: names, shapes and the chosen number format; knows no maths.

use std::borrow::Cow;

use half::{bf16, f16};
use kernels::{Arrangement, Dtype, KernelError, MatrixSource, Ops, VectorSource};

use super::forward::{Layer, Model, Projection};
use super::{AttentionBias, ModelSpec, Tensor, WeightFiles};
use crate::EngineError;

/// In which format matrices are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As the files hold them.
    AsStored,
    /// Converted to this format when loaded.
    Converted(Dtype),
}

impl<O: Ops> Model<O> {
    /// Prepares the weights of `spec` for `ops`. `positions_max` is the longest sequence that will be run.
    pub fn load(
        ops: &O,
        spec: ModelSpec,
        weights: &WeightFiles,
        precision: Precision,
        positions_max: u32,
    ) -> Result<Model<O>, EngineError> {
        let loader = Loader { ops, spec: &spec, weights, precision };
        let layers = (0..spec.layers).map(|layer| loader.layer(layer)).collect::<Result<_, _>>()?;
        let embedding = loader.embedding()?;
        let head = if spec.tied_embeddings { None } else { Some(loader.head()?) };
        let norm = loader.vector(&[(&loader.name(spec.architecture.tensors.norm, "weight"), spec.hidden)])?;
        let frequencies = spec.rope.inverse_frequencies(spec.head_dim);
        let rope = ops.rope(positions_max as usize, &frequencies, 1.0)?;
        let weights_dtype = precision.of(spec.stored_dtype(weights)?);
        Ok(Model { spec, weights_dtype, embedding, layers, norm, head, rope })
    }
}

/// Finds tensors by the names that published models use.
struct Loader<'a, O: Ops> {
    ops: &'a O,
    spec: &'a ModelSpec,
    weights: &'a WeightFiles,
    precision: Precision,
}

impl Precision {
    /// The format that matrices stored as `stored` are computed with.
    #[must_use]
    pub fn of(self, stored: Dtype) -> Dtype {
        match self {
            Precision::AsStored => stored,
            Precision::Converted(wanted) => wanted,
        }
    }
}

impl<O: Ops> Loader<'_, O> {
    fn embedding(&self) -> Result<O::Matrix, EngineError> {
        let arrangement = if self.spec.tied_embeddings { Arrangement::Stacked } else { Arrangement::Table };
        let name = self.name(self.spec.architecture.tensors.embedding, "weight");
        self.matrix(&[(&name, self.spec.vocab)], self.spec.hidden, arrangement)
    }

    fn head(&self) -> Result<O::Matrix, EngineError> {
        let name = format!("{}.weight", self.spec.architecture.tensors.head);
        self.matrix(&[(&name, self.spec.vocab)], self.spec.hidden, Arrangement::Stacked)
    }

    /// A tensor outside of the layers.
    fn name(&self, tensor: &str, end: &str) -> String {
        format!("{}{tensor}.{end}", self.spec.architecture.tensors.prefix)
    }

    /// A tensor of a layer.
    fn layer_name(&self, layer: u32, tensor: &str, end: &str) -> String {
        self.name(&format!("layers.{layer}.{tensor}"), end)
    }

    fn layer(&self, layer: u32) -> Result<Layer<O>, EngineError> {
        let (spec, names) = (self.spec, &self.spec.architecture.tensors);
        let name = |tensor: &str| self.layer_name(layer, tensor, "weight");
        let [gate, up] = names.gate_up.map(name);
        let gate_up = [(gate.as_str(), spec.mlp), (up.as_str(), spec.mlp)];
        let [q_norm, k_norm] = names.qk_norms.map(|tensor| {
            let norm = || self.vector(&[(&name(tensor), spec.head_dim)]);
            spec.qk_norm.then(norm).transpose()
        });
        Ok(Layer {
            attention_norm: self.vector(&[(&name(names.attention_norm), spec.hidden)])?,
            qkv: self.qkv(layer)?,
            q_norm: q_norm?,
            k_norm: k_norm?,
            output: self.output(layer)?,
            mlp_norm: self.vector(&[(&name(names.mlp_norm), spec.hidden)])?,
            gate_up: self.matrix(&gate_up, spec.hidden, Arrangement::GateUp)?,
            down: self.matrix(&[(&name(names.down), spec.hidden)], spec.mlp, Arrangement::Stacked)?,
            window: spec.windows[layer as usize],
        })
    }

    /// Queries, keys and values stacked into one projection.
    fn qkv(&self, layer: u32) -> Result<Projection<O>, EngineError> {
        let spec = self.spec;
        let [q, k, v] = spec.architecture.tensors.qkv;
        let parts = [(q, spec.q_width()), (k, spec.kv_width()), (v, spec.kv_width())];
        let named = |end: &str| parts.map(|(part, n)| (self.layer_name(layer, part, end), n));
        let biased = match spec.attention_bias {
            AttentionBias::None => false,
            AttentionBias::Qkv | AttentionBias::QkvOutput => true,
        };
        self.projection(&named("weight"), &named("bias"), biased, spec.hidden)
    }

    fn output(&self, layer: u32) -> Result<Projection<O>, EngineError> {
        let spec = self.spec;
        let named = |end: &str| [(self.layer_name(layer, spec.architecture.tensors.output, end), spec.hidden)];
        let biased = match spec.attention_bias {
            AttentionBias::None | AttentionBias::Qkv => false,
            AttentionBias::QkvOutput => true,
        };
        self.projection(&named("weight"), &named("bias"), biased, spec.q_width())
    }

    fn projection(
        &self,
        weights: &[(String, u32)],
        biases: &[(String, u32)],
        biased: bool,
        k: u32,
    ) -> Result<Projection<O>, EngineError> {
        let weight = self.matrix(&borrowed(weights), k, Arrangement::Stacked)?;
        let bias = if biased { Some(self.vector(&borrowed(biases))?) } else { None };
        Ok(Projection { weight, bias })
    }

    /// Matrices `[n, k]` stacked along n.
    fn matrix(&self, parts: &[(&str, u32)], k: u32, arrangement: Arrangement) -> Result<O::Matrix, EngineError> {
        let mut converted = Vec::with_capacity(parts.len());
        if self.precision == Precision::AsStored {
            let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
            self.weights.one_dtype(&names)?;
        }
        for (name, n) in parts {
            let tensor = self.weights.tensor(name, &[*n as usize, k as usize])?;
            converted.push((*n as usize, self.converted(tensor)));
        }
        let sources: Vec<MatrixSource<'_>> = converted
            .iter()
            .map(|(n, (bytes, dtype))| MatrixSource { bytes, dtype: *dtype, n: *n, k: k as usize })
            .collect();
        self.ops.matrix(&sources, arrangement).map_err(|error| self.refused(error, parts, self.precision))
    }

    fn vector(&self, parts: &[(&str, u32)]) -> Result<O::Vector, EngineError> {
        let mut sources = Vec::with_capacity(parts.len());
        for (name, n) in parts {
            let tensor = self.weights.tensor(name, &[*n as usize])?;
            sources.push(VectorSource { bytes: tensor.bytes, dtype: tensor.dtype });
        }
        self.ops.vector(&sources).map_err(|error| self.refused(error, parts, Precision::AsStored))
    }

    /// What operations have refused, by the name of the tensor where it is one's fault.
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
            Precision::Converted(_) | Precision::AsStored => (Cow::Borrowed(tensor.bytes), tensor.dtype),
        }
    }
}

fn borrowed(parts: &[(String, u32)]) -> Vec<(&str, u32)> {
    parts.iter().map(|(name, n)| (name.as_str(), *n)).collect()
}

/// The tensor's values in another format, rounded to nearest even where it is narrower.
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
