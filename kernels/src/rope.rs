//! Tables of the rotary embedding (Su et al., "RoFormer", 2021).

use crate::KernelError;

/// Cosines and sines, `[position][frequency]`. The angle is rounded to f32, as the models were trained; cosine and
/// sine are taken in f64 and rounded once, so that tables do not depend on the maths library's f32 functions.
pub(crate) fn tables(
    positions_max: usize,
    inverse_frequencies: &[f32],
    scale: f32,
) -> Result<(Vec<f32>, Vec<f32>), KernelError> {
    if positions_max == 0 || inverse_frequencies.is_empty() {
        let what = format!("{positions_max} positions of {} frequencies are no table", inverse_frequencies.len());
        return Err(KernelError::Invalid { op: "rope", what });
    }
    let angles = (0..positions_max)
        .flat_map(|position| inverse_frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency)));
    Ok(angles.map(|angle| ((angle.cos() as f32) * scale, (angle.sin() as f32) * scale)).unzip())
}
