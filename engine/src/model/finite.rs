//! Finds the weight that is infinite or not a number, after operations have refused its tensor.

use half::bf16;
use kernels::Dtype;

use super::{Tensor, WeightFiles};
use crate::EngineError;

impl WeightFiles {
    /// Error about the first element of the tensor `name` that is not a finite number in the format `computed`.
    pub(super) fn not_finite(&self, name: &str, computed: Dtype) -> EngineError {
        let (file, shape, tensor) = match self.whole(name) {
            Ok(whole) => whole,
            Err(error) => return error,
        };
        let values = values(tensor);
        let found = values.enumerate().find(|(_, value)| !as_computed(*value, computed).is_finite());
        let problem = match found {
            None => "was refused for an element that is not a finite number".to_owned(),
            Some((index, value)) if value.is_finite() => {
                format!("is {value:e} at {:?}, which is infinite as {computed}", place(index, shape))
            }
            Some((index, value)) => {
                format!("is {value} at {:?}; weights must be finite numbers", place(index, shape))
            }
        };
        EngineError::TensorValue { file: file.to_path_buf(), tensor: name.to_owned(), problem }
    }
}

fn values(tensor: Tensor<'_>) -> Box<dyn Iterator<Item = f32> + '_> {
    let (pairs, quads) = (tensor.bytes.as_chunks::<2>().0, tensor.bytes.as_chunks::<4>().0);
    match tensor.dtype {
        Dtype::Bf16 => Box::new(pairs.iter().map(|raw| bf16::from_le_bytes(*raw).to_f32())),
        Dtype::F16 => Box::new(pairs.iter().map(|raw| half::f16::from_le_bytes(*raw).to_f32())),
        Dtype::F32 => Box::new(quads.iter().map(|raw| f32::from_le_bytes(*raw))),
    }
}

fn as_computed(value: f32, computed: Dtype) -> f32 {
    match computed {
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        Dtype::F16 => half::f16::from_f32(value).to_f32(),
        Dtype::F32 => value,
    }
}

/// Indices of a row-major element.
fn place(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|len| {
            let here = index % len;
            index /= len;
            here
        })
        .collect();
    place.reverse();
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_row_major() {
        assert_eq!(place(0, &[2, 3]), [0, 0]);
        assert_eq!(place(5, &[2, 3]), [1, 2]);
        assert_eq!(place(23, &[2, 3, 4]), [1, 2, 3]);
        assert_eq!(place(7, &[8]), [7]);
    }
}
