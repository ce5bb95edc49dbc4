//! Shapes of a thread's tile registers, for sums, left side and right side.

use std::arch::asm;

use super::TILE_ROWS;

/// Shapes of this thread's tile registers, which are released on drop.
pub(in crate::cpu) struct Tiles {
    shape: Option<Shape>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Product(usize),
    Attention(usize),
}

#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Makes the shapes of eight registers: (rows, bytes of a row), at most 16 and 64.
    fn new(registers: [(usize, u16); 8]) -> Self {
        let mut shapes = Self { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        for (register, (rows, bytes)) in registers.into_iter().enumerate() {
            shapes.rows[register] = rows as u8;
            shapes.bytes_per_row[register] = bytes;
        }
        shapes
    }

    unsafe fn load(&self) {
        // SAFETY: tiles are available, and the shapes are valid for palette 1: 1 to 16 rows of at most 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, preserves_flags)) }
    }
}

impl Tiles {
    pub(in crate::cpu) fn new() -> Self {
        Self { shape: None }
    }

    /// Shapes the registers for a product with `rows` rows of the left side, 1 to 32: sums in 0 to 3 and left side in 4
    /// and 5, half of each for the rows from the 17th on; right side in 6 and 7.
    ///
    /// # Safety
    /// Tiles are available.
    pub(in crate::cpu) unsafe fn shape_for_product(&mut self, rows: usize) {
        if self.shape != Some(Shape::Product(rows)) {
            self.shape = Some(Shape::Product(rows));
            let (upper, lower) = ((rows.min(TILE_ROWS), 64), (rows.saturating_sub(TILE_ROWS).max(1), 64));
            let right = (TILE_ROWS, 64);
            // SAFETY: the caller's promise.
            unsafe { Shapes::new([upper, upper, lower, lower, upper, lower, right, right]).load() }
        }
    }

    /// Shapes the registers for attention with `rows` rows of queries, 1 to 16: sums in 0 to 3; left and right side in
    /// 4 and 6, or in 5 and 7 for steps of 8 words.
    ///
    /// # Safety
    /// Tiles are available.
    pub(in crate::cpu) unsafe fn shape_for_attention(&mut self, rows: usize) {
        if self.shape != Some(Shape::Attention(rows)) {
            self.shape = Some(Shape::Attention(rows));
            let sums = (rows, 64);
            // SAFETY: the caller's promise.
            unsafe { Shapes::new([sums, sums, sums, sums, (rows, 64), (rows, 32), (16, 64), (8, 64)]).load() }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.shape.is_some() {
            // SAFETY: shapes were loaded, so tiles are available. A thread without shapes is cheaper to switch.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
        }
    }
}
