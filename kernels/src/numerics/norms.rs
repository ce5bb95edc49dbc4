//! Shift and scale of a row in a norm; knows no weight of a model.

use super::trees::{lane_fold, sum_of_squares};

/// Shift and scale of a row: it becomes `(x - shift) * scale`, each step rounded; weight and bias of the norm follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standardize {
    /// Mean of the row in a layer norm, 0 in an RMS norm.
    pub shift: f32,
    /// One over the root of the mean square (RMS) or of the variance (layer), epsilon included.
    pub scale: f32,
}

impl Standardize {
    /// Shift and scale that leave every value as it is.
    pub const IDENTITY: Standardize = Standardize { shift: 0.0, scale: 1.0 };

    /// Shift 0, scale `1 / sqrt(mean(x²) + eps)`.
    #[inline(always)]
    pub fn rms(x: &[f32], eps: f32) -> Self {
        Self { shift: 0.0, scale: 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt() }
    }

    /// Shift by the mean; scale by the mean of the squared distances from it, each summed in 16 interleaved lanes.
    #[inline(always)]
    pub fn layer(x: &[f32], eps: f32) -> Self {
        let count = x.len() as f32;
        let shift = lane_fold(x, |sum, v| sum + v) / count;
        let squares = lane_fold(x, |sum, v| {
            let distance = v - shift;
            distance.mul_add(distance, sum)
        });
        Self { shift, scale: 1.0 / (squares / count + eps).sqrt() }
    }

    /// Shifts and scales one value.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        (x - self.shift) * self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_norm_has_mean_0_and_variance_1() {
        let x: Vec<f32> = (0..333).map(|i| (i * 7 % 101) as f32 * 0.3 + 1000.0).collect();
        let norm = Standardize::layer(&x, 0.0);
        let y: Vec<f64> = x.iter().map(|v| f64::from(norm.apply(*v))).collect();
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        let variance = y.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / y.len() as f64;
        assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-4, "mean {mean}, variance {variance}");
    }

    #[test]
    fn an_rms_norm_has_mean_square_1() {
        let x: Vec<f32> = (0..333).map(|i| (i * 7 % 101) as f32 * 0.3 - 9.0).collect();
        let norm = Standardize::rms(&x, 0.0);
        let square = x.iter().map(|v| f64::from(norm.apply(*v)).powi(2)).sum::<f64>() / x.len() as f64;
        assert!((square - 1.0).abs() < 1e-5, "mean square {square}");
    }
}
