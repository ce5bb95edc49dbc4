//! Least squares for a line through three quantities whose coefficients are not negative; knows not what they measure.

/// Quantities of one equation, whose sum times the coefficients shall be 1.
pub(super) type Row = [f64; 3];

/// Sums over equations, of which newer ones count more.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    count: f64,
    rows: Row,
    products: [Row; 3],
}

impl Sums {
    /// Adds an equation; what was there before counts `keep` as much as until now.
    pub(super) fn add(&mut self, row: Row, keep: f64) {
        *self = self.times(keep);
        self.merge(&Sums { count: 1.0, rows: row, products: row.map(|left| row.map(|right| left * right)) }, 1.0);
    }

    /// Adds the sums of other equations, whose quantities are all multiplied by `factor`.
    pub(super) fn merge(&mut self, other: &Sums, factor: f64) {
        self.count += other.count;
        for (i, (row, products)) in self.rows.iter_mut().zip(&mut self.products).enumerate() {
            *row += factor * other.rows[i];
            for (j, product) in products.iter_mut().enumerate() {
                *product += factor * factor * other.products[i][j];
            }
        }
    }

    pub(super) fn count(&self) -> f64 {
        self.count
    }

    /// The coefficients of the smallest error. Those that would be negative are left out: time is not given back.
    pub(super) fn solve(&self) -> Row {
        let mut used = [true; 3];
        loop {
            let found = self.solve_with(used);
            let Some(negative) = (0..3).find(|i| used[*i] && found[*i] < 0.0) else { return found };
            used[negative] = false;
        }
    }

    /// Sum of squared errors with these coefficients.
    pub(super) fn error(&self, coefficients: &Row) -> f64 {
        let quadratic: f64 = (0..3)
            .flat_map(|i| (0..3).map(move |j| (i, j)))
            .map(|(i, j)| coefficients[i] * coefficients[j] * self.products[i][j])
            .sum();
        let linear: f64 = (0..3).map(|i| coefficients[i] * self.rows[i]).sum();
        (quadratic - 2.0 * linear + self.count).max(0.0)
    }

    fn times(&self, factor: f64) -> Sums {
        Sums {
            count: self.count * factor,
            rows: self.rows.map(|row| row * factor),
            products: self.products.map(|row| row.map(|product| product * factor)),
        }
    }

    /// Gauss-Jordan elimination, with every quantity scaled to its mean size. A quantity that is 0 everywhere, or that
    /// says the same as those before it, gets the coefficient 0.
    fn solve_with(&self, used: [bool; 3]) -> Row {
        const SINGULAR: f64 = 1e-9;
        let scale: Row = std::array::from_fn(|i| self.products[i][i].sqrt());
        let is_used: [bool; 3] = std::array::from_fn(|i| used[i] && scale[i] > 0.0);
        let mut left = [[0.0; 3]; 3];
        let mut right = [0.0; 3];
        for i in (0..3).filter(|i| is_used[*i]) {
            right[i] = self.rows[i] / scale[i];
            for j in (0..3).filter(|j| is_used[*j]) {
                left[i][j] = self.products[i][j] / (scale[i] * scale[j]);
            }
        }
        let mut solved = [false; 3];
        for pivot in (0..3).filter(|i| is_used[*i]) {
            if left[pivot][pivot] < SINGULAR {
                continue;
            }
            solved[pivot] = true;
            let (row, value) = (left[pivot], right[pivot]);
            for i in (0..3).filter(|i| *i != pivot) {
                let factor = left[i][pivot] / row[pivot];
                right[i] -= factor * value;
                (0..3).for_each(|j| left[i][j] -= factor * row[j]);
            }
        }
        std::array::from_fn(|i| if solved[i] { right[i] / left[i][i] / scale[i] } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of equations that these coefficients solve exactly.
    fn sums(quantities: &[Row], coefficients: Row) -> Sums {
        let mut sums = Sums::default();
        for row in quantities {
            let value: f64 = (0..3).map(|i| row[i] * coefficients[i]).sum();
            sums.add(row.map(|quantity| quantity / value), 1.0);
        }
        sums
    }

    const STEPS: [Row; 4] = [[1.0, 10.0, 100.0], [1.0, 20.0, 400.0], [1.0, 50.0, 2_500.0], [1.0, 30.0, 900.0]];

    #[test]
    fn coefficients_are_found_again() {
        let found = sums(&STEPS, [2_000.0, 40.0, 0.5]).solve();
        for (found, wanted) in found.into_iter().zip([2_000.0, 40.0, 0.5]) {
            assert!((found / wanted - 1.0).abs() < 1e-4, "{found} {wanted}");
        }
        let sums = sums(&STEPS, [2_000.0, 40.0, 0.5]);
        assert!(sums.error(&sums.solve()) < 1e-6 && sums.error(&[1_000.0, 40.0, 0.5]) > 0.1);
    }

    #[test]
    fn quantities_that_say_the_same_share_no_more_than_they_explain() {
        let sums = sums(&[[1.0, 10.0, 0.0]; 5], [100.0, 0.0, 0.0]);
        let found = sums.solve();
        assert!(found.iter().all(|coefficient| coefficient.is_finite()) && sums.error(&found) < 1e-6, "{found:?}");
        assert_eq!(Sums::default().solve(), [0.0; 3]);
    }

    #[test]
    fn no_coefficient_is_negative() {
        let found = sums(&STEPS, [2_000.0, -10.0, 1.0]).solve();
        assert!(found.iter().all(|coefficient| *coefficient >= 0.0), "{found:?}");
    }

    #[test]
    fn newer_equations_count_more() {
        let mut sums = Sums::default();
        (0..100).for_each(|_| sums.add([1.0 / 50.0, 0.0, 0.0], 0.9));
        (0..100).for_each(|_| sums.add([1.0 / 80.0, 0.0, 0.0], 0.9));
        assert!((sums.solve()[0] - 80.0).abs() < 0.1, "{:?}", sums.solve());
        assert!((sums.count() - 10.0).abs() < 0.1);
    }
}
