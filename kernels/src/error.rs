//! Everything a numeric operation can refuse or fail at.

use crate::Dtype;
use crate::memory::RegionKind;

/// Why an operation was refused or failed. Nothing was computed when a shape or an argument was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Two sizes that must agree do not.
    #[error("{op}: {what} is {found}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The size that was compared.
        what: &'static str,
        /// What it must be.
        expected: usize,
        /// What it is.
        found: usize,
    },
    /// An index or a count lies beyond its bound.
    #[error("{op}: {what} {value} must be less than {bound}")]
    OutOfRange {
        /// The operation.
        op: &'static str,
        /// What is counted.
        what: &'static str,
        /// Its value.
        value: usize,
        /// The first value that is too large.
        bound: usize,
    },
    /// An argument that no implementation can serve.
    #[error("{op}: {what}")]
    Invalid {
        /// The operation.
        op: &'static str,
        /// What is wrong, with the values.
        what: String,
    },
    /// A matrix prepared for one operation was given to another.
    #[error("{op}: the matrix was prepared as {found}, not as {expected}")]
    Arrangement {
        /// The operation.
        op: &'static str,
        /// What the operation takes.
        expected: &'static str,
        /// What it was given.
        found: &'static str,
    },
    /// Parts of one matrix have different dtypes.
    #[error("{op}: parts mix {first} and {other}")]
    MixedDtypes {
        /// The operation.
        op: &'static str,
        /// Dtype of the first part.
        first: Dtype,
        /// The one that differs.
        other: Dtype,
    },
    /// Memory of a kind that these operations do not compute in.
    #[error("{op}: {found} was given to operations that compute in {ours}")]
    MemoryKind {
        /// The operation.
        op: &'static str,
        /// Where they compute.
        ours: RegionKind,
        /// What was given.
        found: RegionKind,
    },
    /// A weight is infinite or not a number: everything computed with it would be, too.
    #[error("{op}: element {element} of part {part} is not a finite number")]
    NotFinite {
        /// The operation.
        op: &'static str,
        /// Index of the part.
        part: usize,
        /// Index of the first such element of the part, row-major.
        element: usize,
    },
    /// A kernel set was asked for that this processor cannot run.
    #[error("kernel set {name} needs {missing}, which this processor lacks")]
    KernelSetMissing {
        /// The kernel set.
        name: &'static str,
        /// The instruction sets it needs.
        missing: &'static str,
    },
    /// A kernel set name that does not exist.
    #[error("unknown kernel set {name:?}; known: amx, avx512bf16, avx2, portable")]
    KernelSetUnknown {
        /// What was asked for.
        name: String,
    },
    /// A task of the operation panicked; its output is undefined.
    #[error("{op}: a task panicked: {message}")]
    TaskPanicked {
        /// The operation.
        op: &'static str,
        /// The panic's message.
        message: String,
    },
    /// Memory for a matrix or for rows could not be mapped.
    #[error("memory: {what}")]
    Memory {
        /// What failed, with the bytes wanted and the system's reason.
        what: String,
    },
    /// The worker threads could not be made.
    #[error("worker threads: {what}")]
    Threads {
        /// What failed, with the system's reason.
        what: String,
    },
}
