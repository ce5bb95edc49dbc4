//! Orders in which processors' instructions sum products of bf16 pairs.

/// Order of summing products that come in pairs. A product of two bf16 is exact in f32, so only sums are rounded.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum PairOrder {
    /// Pair by pair, the odd product of each pair first: `VDPBF16PS`, and code that imitates it.
    #[default]
    OddFirst,
    /// Step by step: the even products of a step from left to right, the odd ones likewise, both sums added together,
    /// then to the sum of the steps before: `TDPBF16PS`.
    Steps,
}

impl PairOrder {
    /// All orders.
    pub const ALL: [PairOrder; 2] = [PairOrder::OddFirst, PairOrder::Steps];

    /// Sums products 0 to `count`, an even number; a step has `step` of them, an even number too.
    pub fn sum(self, count: usize, step: usize, product: impl Fn(usize) -> f32) -> f32 {
        match self {
            PairOrder::OddFirst => (0..count).step_by(2).fold(0.0, |sum, i| (sum + product(i + 1)) + product(i)),
            PairOrder::Steps => (0..count).step_by(step).fold(0.0, |sum, first| {
                let pairs = || (first..count.min(first + step)).step_by(2);
                let even = pairs().fold(0.0, |sum, i| sum + product(i));
                let odd = pairs().fold(0.0, |sum, i| sum + product(i + 1));
                sum + (even + odd)
            }),
        }
    }
}

/// Products in one step of [`PairOrder::Steps`] where they are contiguous.
pub const STEP_PRODUCTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_what_they_say() {
        // 1 + 2^-24 is lost, 2^-24 + 2^-24 is not.
        let (one, tiny) = (1.0f32, 2f32.powi(-24));
        let sum = |order: PairOrder, products: &[f32]| order.sum(products.len(), 4, |i| products[i]);
        assert_eq!(sum(PairOrder::OddFirst, &[tiny, one, tiny, 0.0]), one);
        assert_eq!(sum(PairOrder::OddFirst, &[one, tiny, 0.0, tiny]), one + 2.0 * tiny - 2.0 * tiny);
        assert_eq!(sum(PairOrder::Steps, &[tiny, one, tiny, 0.0]), one + 2.0 * tiny);
        assert_eq!(sum(PairOrder::Steps, &[one, 0.0, 0.0, 0.0, tiny, 0.0, 0.0, tiny]), one + 2.0 * tiny);
    }
}
