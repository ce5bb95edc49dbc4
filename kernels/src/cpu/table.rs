//! Kernels compiled once per instruction level, as tables of functions.

use super::append::{Append, append_head};
use super::attention::{AsStored, AttentionKernels, InVectors, QueryTile, Scaled, attend, join};
use super::gemm::{GroupSizes, Grouping, PackRows, Panel, pack_int8, pack_rows, panel};
use super::kernel_set::KernelSet;
use super::lanes::{ChunkFormat, Int8Quads, Lanes, portable};

/// Kernels of one level, which all need the level's instructions.
pub(super) struct Kernels {
    pub(super) bf16: ProductKernels,
    pub(super) f32: ProductKernels,
    pub(super) int8: ProductKernels,
    pub(super) attention: CacheKernels,
    /// As `append::append_head`.
    pub(super) append_head: unsafe fn(&Append<'_>, usize),
}

#[derive(Clone, Copy)]
pub(super) struct ProductKernels {
    pub(super) grouping: Grouping,
    /// Words of the packed left side for a chunk with this number of words.
    pub(super) left_chunk_words: fn(usize) -> usize,
    /// As `gemm::pack_rows`, `gemm::pack_int8` or `gemm::pack_tiles`.
    pub(super) pack_rows: unsafe fn(&PackRows<'_>, &mut [u32]),
    /// As `gemm::panel` or `gemm::panel_tiles`.
    pub(super) panel: unsafe fn(&Panel<'_>),
}

impl ProductKernels {
    const fn new<F: ChunkFormat>(
        pack_rows: unsafe fn(&PackRows<'_>, &mut [u32]),
        panel: unsafe fn(&Panel<'_>),
    ) -> Self {
        // A quarter of the second-level cache of Zen 4.
        let grouping = Grouping {
            rows_max: F::Lanes::ROWS_MAX,
            sizes: GroupSizes::Even,
            band_bytes_max: 256 * 1024,
            task_macs_min: 5 << 20,
        };
        Self { grouping, left_chunk_words: |words| F::HEAD_WORDS + words, pack_rows, panel }
    }
}

#[derive(Clone, Copy)]
pub(super) struct CacheKernels {
    pub(super) bf16: AttentionKernels,
    pub(super) f32: AttentionKernels,
    pub(super) int8: AttentionKernels,
}

/// Compiles a kernel with the instructions of a level.
macro_rules! kernel {
    ($(#[$feature:meta])? $name:ident($($argument:ident: $type:ty),*) = $kernel:expr) => {
        $(#[$feature])?
        unsafe fn $name($($argument: $type),*) {
            // SAFETY: this function's contract is the kernel's.
            unsafe { $kernel($($argument),*) }
        }
    };
}

/// Compiles all generic kernels with the instructions of one level.
macro_rules! level {
    ($name:ident, $lanes:path, $(#[$feature:meta])?) => {
        mod $name {
            use super::*;
            use $lanes as level;
            use level::{Bf16Pairs, F32Words, F32x16, I32x16};

            kernel!($(#[$feature])? pack_bf16(rows: &PackRows<'_>, words: &mut [u32]) = pack_rows::<Bf16Pairs>);
            kernel!($(#[$feature])? pack_f32(rows: &PackRows<'_>, words: &mut [u32]) = pack_rows::<F32Words>);
            kernel!($(#[$feature])? pack_i8(rows: &PackRows<'_>, words: &mut [u32]) = pack_int8::<F32x16>);
            kernel!($(#[$feature])? panel_bf16(part: &Panel<'_>) = panel::<Bf16Pairs>);
            kernel!($(#[$feature])? panel_f32(part: &Panel<'_>) = panel::<F32Words>);
            kernel!($(#[$feature])? panel_i8(part: &Panel<'_>) = panel::<Int8Quads<I32x16>>);
            kernel!($(#[$feature])? attend_bf16(tile: &QueryTile<'_>) = attend::<AsStored<Bf16Pairs>, InVectors>);
            kernel!($(#[$feature])? attend_f32(tile: &QueryTile<'_>) = attend::<AsStored<F32Words>, InVectors>);
            kernel!($(#[$feature])? attend_int8(tile: &QueryTile<'_>) = attend::<Scaled<Bf16Pairs>, InVectors>);
            kernel!($(#[$feature])? join_chunks(tile: &QueryTile<'_>) = join::<F32x16>);
            kernel!($(#[$feature])? append(call: &Append<'_>, kv_head: usize) = append_head);

            pub(super) static KERNELS: Kernels = Kernels {
                bf16: ProductKernels::new::<Bf16Pairs>(pack_bf16, panel_bf16),
                f32: ProductKernels::new::<F32Words>(pack_f32, panel_f32),
                attention: CacheKernels {
                    bf16: AttentionKernels { attend: attend_bf16, join: join_chunks },
                    f32: AttentionKernels { attend: attend_f32, join: join_chunks },
                    int8: AttentionKernels { attend: attend_int8, join: join_chunks },
                },
                int8: ProductKernels::new::<Int8Quads<I32x16>>(pack_i8, panel_i8),
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

/// Products of bf16 and int8 on tile registers; all else is the AVX-512 level's.
#[cfg(target_arch = "x86_64")]
mod amx {
    use super::*;
    use crate::cpu::attention::InTiles;
    use crate::cpu::gemm::{Bf16Tiles, GROUP_ROWS, Int8Tiles, TileFormat, left_chunk_words, pack_tiles, panel_tiles};
    use crate::cpu::lanes::avx512::Bf16Pairs;

    macro_rules! tile_kernel {
        ($($kernel:tt)*) => {
            kernel!(
                #[target_feature(
                    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx512bf16,avx2,fma,f16c"
                )]
                $($kernel)*
            );
        };
    }

    tile_kernel!(pack_bf16(rows: &PackRows<'_>, words: &mut [u32]) = pack_tiles::<Bf16Tiles>);
    tile_kernel!(panel_bf16(part: &Panel<'_>) = panel_tiles::<Bf16Tiles>);
    tile_kernel!(pack_int8(rows: &PackRows<'_>, words: &mut [u32]) = pack_tiles::<Int8Tiles>);
    tile_kernel!(panel_int8(part: &Panel<'_>) = panel_tiles::<Int8Tiles>);
    tile_kernel!(attend_bf16(tile: &QueryTile<'_>) = attend::<AsStored<Bf16Pairs>, InTiles>);
    tile_kernel!(attend_int8(tile: &QueryTile<'_>) = attend::<Scaled<Bf16Pairs>, InTiles>);

    const fn products<T: TileFormat>(
        pack_rows: unsafe fn(&PackRows<'_>, &mut [u32]),
        panel: unsafe fn(&Panel<'_>),
    ) -> ProductKernels {
        // Half of the second-level cache of Sapphire Rapids.
        let grouping = Grouping {
            rows_max: GROUP_ROWS,
            sizes: GroupSizes::Full,
            band_bytes_max: 1 << 20,
            task_macs_min: 64 << 20,
        };
        ProductKernels { grouping, left_chunk_words: left_chunk_words::<T>, pack_rows, panel }
    }

    pub(super) static KERNELS: Kernels = Kernels {
        bf16: products::<Bf16Tiles>(pack_bf16, panel_bf16),
        int8: products::<Int8Tiles>(pack_int8, panel_int8),
        f32: avx512_bf16::KERNELS.f32,
        attention: CacheKernels {
            bf16: AttentionKernels { attend: attend_bf16, ..avx512_bf16::KERNELS.attention.bf16 },
            int8: AttentionKernels { attend: attend_int8, ..avx512_bf16::KERNELS.attention.int8 },
            f32: avx512_bf16::KERNELS.attention.f32,
        },
        append_head: avx512_bf16::KERNELS.append_head,
    };
}

/// Table of a kernel set that this processor has.
#[cfg(target_arch = "x86_64")]
pub(super) fn kernels(set: KernelSet) -> &'static Kernels {
    match set {
        KernelSet::Amx => &amx::KERNELS,
        KernelSet::Avx512Bf16 => &avx512_bf16::KERNELS,
        KernelSet::Avx2 => &avx2_fma::KERNELS,
        KernelSet::Portable => &plain::KERNELS,
    }
}

/// The only table, that of the portable set.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn kernels(_: KernelSet) -> &'static Kernels {
    &plain::KERNELS
}
