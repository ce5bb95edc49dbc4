//! Tensors that make a layer, by the names of the architecture; knows no format and no maths.

use kernels::{Arrangement, NormKind, Ops};

use super::experts::Experts;
use super::forward::{Layer, NormWeights};
use super::load::{Cut, Loader};
use super::mlp::Mlp;
use super::projection::Projection;
use super::spec::ExpertNames;
use super::{AttentionBias, MlpSpec};
use crate::EngineError;

impl<O: Ops> Loader<'_, O> {
    pub(super) fn layer(&self, layer: u32) -> Result<Layer<O>, EngineError> {
        let (spec, names) = (self.spec, &self.spec.architecture.tensors);
        let [q_norm, k_norm] = names.qk_norms.map(|tensor| {
            let norm = || self.vector(&[(&self.layer_name(layer, tensor, "weight"), spec.head_dim)], Cut::Whole);
            spec.qk_norm.then(norm).transpose()
        });
        Ok(Layer {
            attention_norm: self.norm(&format!("layers.{layer}.{}", names.attention_norm))?,
            qkv: self.qkv(layer)?,
            q_norm: q_norm?,
            k_norm: k_norm?,
            output: self.output(layer)?,
            mlp_norm: self.norm(&format!("layers.{layer}.{}", names.mlp_norm))?,
            mlp: self.mlp(layer, spec.mlps[layer as usize])?,
            window: spec.windows[layer as usize],
        })
    }

    pub(super) fn norm(&self, tensor: &str) -> Result<NormWeights<O>, EngineError> {
        let part = |end: &str| self.vector(&[(&self.name(tensor, end), self.spec.hidden)], Cut::Whole);
        let bias = match self.spec.norm {
            NormKind::Rms => None,
            NormKind::Layer => Some(part("bias")?),
        };
        Ok(NormWeights { weight: part("weight")?, bias })
    }

    /// Name of a tensor outside of the layers.
    pub(super) fn name(&self, tensor: &str, end: &str) -> String {
        format!("{}{tensor}.{end}", self.prefix)
    }

    fn layer_name(&self, layer: u32, tensor: &str, end: &str) -> String {
        self.name(&format!("layers.{layer}.{tensor}"), end)
    }

    fn qkv(&self, layer: u32) -> Result<Projection<O>, EngineError> {
        let spec = self.spec;
        let [q, k, v] = spec.architecture.tensors.qkv;
        let parts = [(q, spec.q_width()), (k, spec.kv_width()), (v, spec.kv_width())];
        let named = |end: &str| parts.map(|(part, n)| (self.layer_name(layer, part, end), n));
        let biases = named("bias");
        let biases = match spec.attention_bias {
            AttentionBias::None => None,
            AttentionBias::Qkv | AttentionBias::QkvOutput => Some(&biases[..]),
        };
        self.projection(&named("weight"), biases, spec.hidden, Cut::Rows)
    }

    fn output(&self, layer: u32) -> Result<Projection<O>, EngineError> {
        let spec = self.spec;
        let named = |end: &str| [(self.layer_name(layer, spec.architecture.tensors.output, end), spec.hidden)];
        let biases = named("bias");
        let biases = match spec.attention_bias {
            AttentionBias::None | AttentionBias::Qkv => None,
            AttentionBias::QkvOutput => Some(&biases[..]),
        };
        self.projection(&named("weight"), biases, spec.q_width(), Cut::Columns)
    }

    fn mlp(&self, layer: u32, mlp: MlpSpec) -> Result<Mlp<O>, EngineError> {
        let names = &self.spec.architecture.tensors;
        match mlp {
            MlpSpec::Gated { width } => {
                let name = |tensor| self.layer_name(layer, tensor, "weight");
                let (gate_up, down) = self.gated(names.gate_up.map(name), &name(names.down), width)?;
                Ok(Mlp::Gated { gate_up, down })
            }
            MlpSpec::Relu { width } => {
                let hidden = self.spec.hidden;
                Ok(Mlp::Relu {
                    up: self.biased(layer, names.up, width, hidden, Cut::Rows)?,
                    down: self.biased(layer, names.down, hidden, width, Cut::Columns)?,
                })
            }
            MlpSpec::Experts { width, routing } => Ok(Mlp::Experts(self.experts(layer, width, routing.experts)?)),
        }
    }

    fn biased(&self, layer: u32, tensor: &str, n: u32, k: u32, cut: Cut) -> Result<Projection<O>, EngineError> {
        let named = |end: &str| [(self.layer_name(layer, tensor, end), n)];
        self.projection(&named("weight"), Some(&named("bias")), k, cut)
    }

    /// Loads gate and up as one matrix, and down.
    fn gated(&self, [gate, up]: [String; 2], down: &str, width: u32) -> Result<(O::Matrix, O::Matrix), EngineError> {
        let hidden = self.spec.hidden;
        let gate_up = self.matrix(&[(&gate, width), (&up, width)], hidden, Arrangement::GateUp, Cut::Rows)?;
        Ok((gate_up, self.matrix(&[(down, hidden)], width, Arrangement::Stacked, Cut::Columns)?))
    }

    fn experts(&self, layer: u32, width: u32, experts: usize) -> Result<Experts<O>, EngineError> {
        let named = self.spec.architecture.tensors.experts;
        let router = |names: &ExpertNames| self.layer_name(layer, names.router, "weight");
        let is_there = |names: &&ExpertNames| self.weights.contains(&router(names));
        let names = named.iter().find(is_there).unwrap_or(&named[0]);
        // The router first: its shape shows a wrong number of experts.
        let part = (router(names), experts as u32);
        let part = [(part.0.as_str(), part.1)];
        let router = self.without_int8().matrix(&part, self.spec.hidden, Arrangement::Stacked, Cut::Whole)?;
        let matrices = (0..experts).map(|expert| {
            let name = |tensor| self.layer_name(layer, &format!("{}.{expert}.{tensor}", names.experts), "weight");
            self.gated(names.gate_up.map(name), &name(names.down), width)
        });
        let (gate_up, down) = matrices.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        Ok(Experts { router, gate_up, down })
    }
}
