//! Instruction levels: their names, and which of them this processor has.

use std::fmt;
use std::str::FromStr;

use crate::KernelError;
use crate::numerics::PairOrder;

/// An instruction level that the CPU kernels are compiled for, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KernelSet {
    /// AVX-512 as in `Avx512Bf16`, and tile registers (AMX-TILE, AMX-BF16, AMX-INT8) for products of bf16 and int8
    /// (Sapphire Rapids and later).
    Amx,
    /// AVX-512 F, BW, DQ, VL, VBMI, VNNI and BF16 (Zen 4, Sapphire Rapids and later).
    Avx512Bf16,
    /// AVX2 and FMA (since 2013).
    Avx2,
    /// Plain code, with the instructions that the compiler may use for the target.
    Portable,
}

impl KernelSet {
    /// All sets, the best first.
    pub const ALL: [KernelSet; 4] = [KernelSet::Amx, KernelSet::Avx512Bf16, KernelSet::Avx2, KernelSet::Portable];

    /// Best set of this processor.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|set| set.is_available()).unwrap_or(KernelSet::Portable)
    }

    /// True if this processor can run the set.
    pub fn is_available(self) -> bool {
        match self {
            KernelSet::Amx => has_avx512_bf16() && has_amx(),
            KernelSet::Avx512Bf16 => has_avx512_bf16(),
            KernelSet::Avx2 => has_avx2(),
            KernelSet::Portable => true,
        }
    }

    /// Returns an error that names the missing instructions if this processor cannot run the set.
    pub fn require(self) -> Result<(), KernelError> {
        if self.is_available() {
            return Ok(());
        }
        let missing = match self {
            KernelSet::Amx => "AMX-TILE, AMX-BF16, AMX-INT8 (and the system's permission), or what avx512bf16 needs",
            KernelSet::Avx512Bf16 => "AVX-512 F, BW, DQ, VL, VBMI, VNNI, BF16",
            KernelSet::Avx2 => "AVX2, FMA",
            KernelSet::Portable => "nothing",
        };
        Err(KernelError::KernelSetMissing { name: self.name(), missing })
    }

    /// Order in which the set sums products of bf16.
    pub const fn pair_order(self) -> PairOrder {
        match self {
            KernelSet::Amx => PairOrder::Steps,
            KernelSet::Avx512Bf16 | KernelSet::Avx2 | KernelSet::Portable => PairOrder::OddFirst,
        }
    }

    /// `amx`, `avx512bf16`, `avx2` or `portable`.
    pub const fn name(self) -> &'static str {
        match self {
            KernelSet::Amx => "amx",
            KernelSet::Avx512Bf16 => "avx512bf16",
            KernelSet::Avx2 => "avx2",
            KernelSet::Portable => "portable",
        }
    }
}

impl fmt::Display for KernelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KernelSet {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        let found = Self::ALL.into_iter().find(|set| set.name() == name);
        found.ok_or_else(|| KernelError::KernelSetUnknown { name: name.to_owned() })
    }
}

#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    super::amx::is_available()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_amx() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_bf16() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512bf16")
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512_bf16() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}
