//! Errors of numeric operations.

use crate::Dtype;
use crate::memory::RegionKind;

/// Reason why an operation was refused or failed. A call whose shapes or arguments are refused computes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Two sizes differ that must be equal.
    #[error("{op}: {what} is {found}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Name of the size.
        what: &'static str,
        /// Required size.
        expected: usize,
        /// Size found.
        found: usize,
    },
    /// An index or a count is too large.
    #[error("{op}: {what} {value} must be less than {bound}")]
    OutOfRange {
        /// The operation.
        op: &'static str,
        /// Name of the index or count.
        what: &'static str,
        /// Value found.
        value: usize,
        /// Smallest value that is too large.
        bound: usize,
    },
    /// An argument that no implementation can serve.
    #[error("{op}: {what}")]
    Invalid {
        /// The operation.
        op: &'static str,
        /// Reason, with the values.
        what: String,
    },
    /// A matrix prepared for one operation was given to another.
    #[error("{op}: the matrix was prepared as {found}, not as {expected}")]
    Arrangement {
        /// The operation.
        op: &'static str,
        /// Arrangement that the operation takes.
        expected: &'static str,
        /// Arrangement of the matrix.
        found: &'static str,
    },
    /// Parts of one matrix have different dtypes.
    #[error("{op}: parts mix {first} and {other}")]
    MixedDtypes {
        /// The operation.
        op: &'static str,
        /// Dtype of the first part.
        first: Dtype,
        /// Another dtype among the parts.
        other: Dtype,
    },
    /// Memory that these operations cannot compute in.
    #[error("{op}: {found} was given to operations that compute in {ours}")]
    MemoryKind {
        /// The operation.
        op: &'static str,
        /// Kind of memory that the operations compute in.
        ours: RegionKind,
        /// Kind of memory given.
        found: RegionKind,
    },
    /// A weight is infinite or NaN, which would spread to every result.
    #[error("{op}: element {element} of part {part} is not a finite number")]
    NotFinite {
        /// The operation.
        op: &'static str,
        /// Index of the part.
        part: usize,
        /// Index of the first such element in the part, row-major.
        element: usize,
    },
    /// This processor cannot run the kernel set.
    #[error("kernel set {name} needs {missing}, which this processor lacks")]
    KernelSetMissing {
        /// The kernel set.
        name: &'static str,
        /// The instruction sets it needs.
        missing: &'static str,
    },
    /// No kernel set has this name.
    #[error("unknown kernel set {name:?}; known: amx, avx512bf16, avx2, portable")]
    KernelSetUnknown {
        /// The unknown name.
        name: String,
    },
    /// A task of the operation panicked; the output is undefined.
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
        /// The failure, with the system's reason.
        what: String,
    },
    /// The worker threads could not be started.
    #[error("worker threads: {what}")]
    Threads {
        /// The failure, with the system's reason.
        what: String,
    },
}
