//! AVX-512 with BF16: one register holds 16 lanes, and one instruction multiplies and adds 16 pairs of bf16.

use std::arch::x86_64::*;

use super::{Format, Int8Sums, Lanes, Widen, trees};

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in crate::cpu) struct F32x16(__m512);

impl F32x16 {
    /// Stores a whole cache line without fetching it. Other stores may overtake it until an `sfence`.
    ///
    /// # Safety
    /// The level's instructions exist; `to` begins a line that may be written.
    #[inline(always)]
    pub(in crate::cpu) unsafe fn store_past_caches(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_stream_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn halves(self) -> (__m256, __m256) {
        // SAFETY: called where the level's instructions are promised.
        unsafe { (_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0)) }
    }
}

/// Defines methods of one instruction each.
macro_rules! instructions {
    ($($name:ident($($argument:ident),*) = $instruction:ident;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($argument: Self),*) -> Self {
            // SAFETY: as below.
            Self(unsafe { $instruction(self.0, $($argument.0),*) })
        }
    )*};
}

// SAFETY of every block below: the trait's contract is that the caller runs on a processor with these instructions and
// that pointers are good for 16 values; the instructions themselves have no other precondition.
impl Lanes for F32x16 {
    const ROWS_MAX: usize = 12;
    const VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    instructions! {
        add(other) = _mm512_add_ps;
        sub(other) = _mm512_sub_ps;
        mul(other) = _mm512_mul_ps;
        div(other) = _mm512_div_ps;
        mul_add(b, c) = _mm512_fmadd_ps;
        max(other) = _mm512_max_ps;
        min(other) = _mm512_min_ps;
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, bound: Self, value: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(self.0, bound.0);
            Self(_mm512_maskz_mov_ps(keep, value.0))
        }
    }
    #[inline(always)]
    unsafe fn power_of_shifted(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(127 << 23))))
        }
    }
    trees! {
        tree_sum = _mm256_add_ps, _mm_add_ps, _mm_add_ss;
        tree_max = _mm256_max_ps, _mm_max_ps, _mm_max_ss;
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, to: *mut u8) {
        // SAFETY: see above.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(self.0))) }
    }
}

/// Sixteen i32 for `VPDPBUSD`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(in crate::cpu) struct I32x16(__m512i);

impl I32x16 {
    /// Loads stored sums.
    #[inline(always)]
    pub(in crate::cpu) unsafe fn load_sums(from: *const u32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }
    /// Adds `value` to each; wraps around.
    #[inline(always)]
    pub(in crate::cpu) unsafe fn plus(self, value: i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_epi32(self.0, _mm512_set1_epi32(value)) })
    }
}

impl Int8Sums for I32x16 {
    type Lanes = F32x16;
    type Words = __m512i;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_epi32(value) })
    }
    #[inline(always)]
    unsafe fn add(self, left: u32, right: __m512i) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, right, _mm512_set1_epi32(left.cast_signed())) })
    }
    #[inline(always)]
    unsafe fn to_f32(self) -> F32x16 {
        // SAFETY: see above.
        F32x16(unsafe { _mm512_cvtepi32_ps(self.0) })
    }
}

/// Pairs of bf16 for `VDPBF16PS`, which adds the odd product first and treats subnormal inputs and results as 0.
pub(in crate::cpu) struct Bf16Pairs;

impl Format for Bf16Pairs {
    type Lanes = F32x16;
    type Words = __m512bh;
    const PER_WORD: usize = 2;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512bh {
        // SAFETY: see above; both types are 64 plain bytes.
        unsafe { std::mem::transmute(_mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    unsafe fn mac(acc: F32x16, left: u32, right: __m512bh) -> F32x16 {
        // SAFETY: see above; both types are 64 plain bytes.
        unsafe {
            let left: __m512bh = std::mem::transmute(_mm512_set1_epi32(left.cast_signed()));
            F32x16(_mm512_dpbf16_ps(acc.0, left, right))
        }
    }
    #[inline(always)]
    unsafe fn store_words(values: F32x16, to: *mut u32) -> F32x16 {
        // SAFETY: see above; `__m256bh` and `__m256i` are 32 plain bytes.
        unsafe {
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values.0));
            _mm256_storeu_si256(to.cast(), rounded);
            F32x16(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded))))
        }
    }
}

/// Low bytes, then high bytes, of 0 to 127 as bf16: tables for `VPERMI2B`.
static MAGNITUDES: [[u8; 128]; 2] = {
    let mut tables = [[0; 128]; 2];
    let mut magnitude = 0;
    while magnitude < 128 {
        let [low, high] = (((magnitude as f32).to_bits() >> 16) as u16).to_le_bytes();
        tables[0][magnitude] = low;
        tables[1][magnitude] = high;
        magnitude += 1;
    }
    tables
};

#[inline(always)]
unsafe fn look_up(table: &[u8; 128], indices: __m512i) -> __m512i {
    // SAFETY: called where the level's instructions are promised; the table has 128 bytes.
    unsafe {
        let low = _mm512_loadu_si512(table.as_ptr().cast());
        let high = _mm512_loadu_si512(table.as_ptr().add(64).cast());
        _mm512_permutex2var_epi8(low, indices, high)
    }
}

impl Widen for Bf16Pairs {
    /// Looks up both bytes of a bf16 by the integer's magnitude; the sign bit is in the right place already.
    #[inline(always)]
    unsafe fn widen(from: [*const i8; 2], to: [*mut u32; 2]) {
        // SAFETY: see above; the caller promises 32 integers and 16 words each, the tables have 128 bytes.
        unsafe {
            let first = _mm512_castsi256_si512(_mm256_loadu_si256(from[0].cast()));
            let both = _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(from[1].cast()));
            // Interleaves 8 bytes of the first and 8 of the second, because unpacking works on 16 bytes each.
            let mixed = _mm512_permutexvar_epi64(_mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0), both);
            let magnitudes = _mm512_abs_epi8(mixed);
            let signs = _mm512_and_si512(mixed, _mm512_set1_epi8(i8::MIN));
            let low = look_up(&MAGNITUDES[0], magnitudes);
            let high = _mm512_or_si512(look_up(&MAGNITUDES[1], magnitudes), signs);
            _mm512_storeu_si512(to[0].cast(), _mm512_unpacklo_epi8(low, high));
            _mm512_storeu_si512(to[1].cast(), _mm512_unpackhi_epi8(low, high));
        }
    }
}

pub(in crate::cpu) type F32Words = super::F32Words<F32x16>;
