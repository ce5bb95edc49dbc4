//! The kernels compiled once per instruction level, as tables of functions.

use super::append::{Append, append_head};
use super::attention::{AsStored, AttentionKernels, QueryTile, Scaled, attend, join};
use super::gemm::{PackRows, Panel, pack_int8, pack_rows, panel};
use super::kernel_set::KernelSet;
use super::lanes::{ChunkFormat, Int8Quads, Int8Sums, portable};

/// The kernels of one level. All of them need the level's instructions.
pub(super) struct Kernels {
    pub(super) bf16: ProductKernels,
    pub(super) f32: ProductKernels,
    /// Products with int8 weights.
    pub(super) int8: ProductKernels,
    pub(super) attention: CacheKernels,
    /// As `append::append_head`.
    pub(super) append_head: unsafe fn(&Append<'_>, usize),
}

/// Products of one level for one word format.
pub(super) struct ProductKernels {
    /// Rows of the largest register tile.
    pub(super) rows_max: usize,
    /// Words of the left side before each chunk.
    pub(super) head_words: usize,
    /// As `gemm::pack_rows` or `gemm::pack_int8`.
    pub(super) pack_rows: unsafe fn(&PackRows<'_>, &mut [u32]),
    /// As `gemm::panel`.
    pub(super) panel: unsafe fn(&Panel<'_>),
}

impl ProductKernels {
    const fn new<F: ChunkFormat>(
        pack_rows: unsafe fn(&PackRows<'_>, &mut [u32]),
        panel: unsafe fn(&Panel<'_>),
    ) -> Self {
        Self { rows_max: F::ROWS_MAX, head_words: F::HEAD_WORDS, pack_rows, panel }
    }
}

/// Attention over a cache of each dtype.
pub(super) struct CacheKernels {
    pub(super) bf16: AttentionKernels,
    pub(super) f32: AttentionKernels,
    pub(super) int8: AttentionKernels,
}

/// Compiles the generic kernels with one level's instructions.
macro_rules! level {
    ($name:ident, $lanes:path, $(#[$feature:meta])?) => {
        mod $name {
            use super::*;
            use $lanes as level;

            $(#[$feature])?
            unsafe fn pack_bf16(rows: &PackRows<'_>, words: &mut [u32]) {
                // SAFETY: this function's contract is the kernel's; so for all functions of this module.
                unsafe { pack_rows::<level::Bf16Pairs>(rows, words) }
            }
            $(#[$feature])?
            unsafe fn pack_f32(rows: &PackRows<'_>, words: &mut [u32]) {
                // SAFETY: as above.
                unsafe { pack_rows::<level::F32Words>(rows, words) }
            }
            $(#[$feature])?
            unsafe fn panel_bf16(part: &Panel<'_>) {
                // SAFETY: as above.
                unsafe { panel::<level::Bf16Pairs>(part) }
            }
            $(#[$feature])?
            unsafe fn panel_f32(part: &Panel<'_>) {
                // SAFETY: as above.
                unsafe { panel::<level::F32Words>(part) }
            }
            $(#[$feature])?
            unsafe fn pack_i8(rows: &PackRows<'_>, words: &mut [u32]) {
                // SAFETY: as above.
                unsafe { pack_int8::<<level::I32x16 as Int8Sums>::Lanes>(rows, words) }
            }
            $(#[$feature])?
            unsafe fn panel_i8(part: &Panel<'_>) {
                // SAFETY: as above.
                unsafe { panel::<Int8Quads<level::I32x16>>(part) }
            }
            $(#[$feature])?
            unsafe fn attend_bf16(tile: &QueryTile<'_>) {
                // SAFETY: as above.
                unsafe { attend::<AsStored<level::Bf16Pairs>>(tile) }
            }
            $(#[$feature])?
            unsafe fn attend_int8(tile: &QueryTile<'_>) {
                // SAFETY: as above.
                unsafe { attend::<Scaled<level::Bf16Pairs>>(tile) }
            }
            $(#[$feature])?
            unsafe fn join_chunks(tile: &QueryTile<'_>) {
                // SAFETY: as above.
                unsafe { join::<level::F32x16>(tile) }
            }
            $(#[$feature])?
            unsafe fn attend_f32(tile: &QueryTile<'_>) {
                // SAFETY: as above.
                unsafe { attend::<AsStored<level::F32Words>>(tile) }
            }
            $(#[$feature])?
            unsafe fn append(call: &Append<'_>, kv_head: usize) {
                // SAFETY: as above.
                unsafe { append_head(call, kv_head) }
            }

            pub(super) static KERNELS: Kernels = Kernels {
                bf16: ProductKernels::new::<level::Bf16Pairs>(pack_bf16, panel_bf16),
                f32: ProductKernels::new::<level::F32Words>(pack_f32, panel_f32),
                attention: CacheKernels {
                    bf16: AttentionKernels { attend: attend_bf16, join: join_chunks },
                    f32: AttentionKernels { attend: attend_f32, join: join_chunks },
                    int8: AttentionKernels { attend: attend_int8, join: join_chunks },
                },
                int8: ProductKernels::new::<Int8Quads<level::I32x16>>(pack_i8, panel_i8),
                append_head: append,
            };
        }
    };
}

level!(plain, portable,);
#[cfg(target_arch = "x86_64")]
level!(avx2_fma, crate::cpu::lanes::avx2, #[target_feature(enable = "avx2,fma,f16c")]);
#[cfg(target_arch = "x86_64")]
level!(
    avx512_bf16,
    crate::cpu::lanes::avx512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx512bf16,avx2,fma,f16c")]
);

/// The table of a kernel set that this processor has.
#[cfg(target_arch = "x86_64")]
pub(super) fn kernels(set: KernelSet) -> &'static Kernels {
    match set {
        KernelSet::Avx512Bf16 => &avx512_bf16::KERNELS,
        KernelSet::Avx2 => &avx2_fma::KERNELS,
        KernelSet::Portable => &plain::KERNELS,
    }
}

/// The table of a kernel set that this processor has: only the portable one.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn kernels(_: KernelSet) -> &'static Kernels {
    &plain::KERNELS
}
