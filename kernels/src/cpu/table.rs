//! The kernels compiled once per instruction level, as tables of functions.

use super::append::{Append, append_head};
use super::attention::{AsStored, AttentionKernels, QueryTile, Scaled, attend, join};
use super::gemm::{PackRows, Panel, pack_rows, panel};
use super::kernel_set::KernelSet;
use super::lanes::{Format, portable};

/// The kernels of one level. All of them need the level's instructions.
pub(super) struct Kernels {
    pub(super) bf16: FormatKernels,
    pub(super) f32: FormatKernels,
    pub(super) attention: CacheKernels,
    /// As `append::append_head`.
    pub(super) append_head: unsafe fn(&Append<'_>, usize),
}

/// The kernels of one level for one word format.
pub(super) struct FormatKernels {
    /// Rows of the largest register tile.
    pub(super) rows_max: usize,
    /// As `gemm::pack_rows`.
    pub(super) pack_rows: unsafe fn(&PackRows<'_>, &mut [u32]),
    /// As `gemm::panel`.
    pub(super) panel: unsafe fn(&Panel<'_>),
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
                bf16: FormatKernels {
                    rows_max: level::Bf16Pairs::ROWS_MAX,
                    pack_rows: pack_bf16,
                    panel: panel_bf16,
                },
                f32: FormatKernels {
                    rows_max: level::F32Words::ROWS_MAX,
                    pack_rows: pack_f32,
                    panel: panel_f32,
                },
                attention: CacheKernels {
                    bf16: AttentionKernels { attend: attend_bf16, join: join_chunks },
                    f32: AttentionKernels { attend: attend_f32, join: join_chunks },
                    int8: AttentionKernels { attend: attend_int8, join: join_chunks },
                },
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
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16,avx2,fma,f16c")]
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
