//! Tables of the rotary embedding (Su et al., "RoFormer", 2021).

use crate::{KernelError, RopeSize};

/// Cosines and sines in host memory, `[position][half]`.
#[derive(Debug, Clone)]
pub struct HostRope {
    pub(crate) half: usize,
    positions_max: usize,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
}

impl HostRope {
    /// The angle is rounded to f32, as the models were trained; cosine and sine are taken in f64 and rounded once, so
    /// that tables do not depend on a maths library's f32 functions.
    pub(crate) fn new(positions_max: usize, inverse_frequencies: &[f32], scale: f32) -> Result<Self, KernelError> {
        let half = inverse_frequencies.len();
        if positions_max == 0 || half == 0 {
            let what = format!("{positions_max} positions of {half} frequencies are no table");
            return Err(KernelError::Invalid { op: "rope", what });
        }
        let angle = |position: usize, frequency: &f32| f64::from(position as f32 * frequency);
        let angles = (0..positions_max).flat_map(|p| inverse_frequencies.iter().map(move |f| angle(p, f)));
        let (cos, sin) = angles.map(|angle| ((angle.cos() as f32) * scale, (angle.sin() as f32) * scale)).unzip();
        Ok(Self { half, positions_max, cos, sin })
    }
}

impl RopeSize for HostRope {
    fn half(&self) -> usize {
        self.half
    }
    fn positions_max(&self) -> usize {
        self.positions_max
    }
}
