//! Errors in building a machine; what goes wrong for a request is a `Failure`.

use thiserror::Error;

/// Reason why a machine cannot be built as asked.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SchedError {
    /// A value of a replica's configuration is out of range.
    #[error("replica configuration: {field} is {value}, but {rule}")]
    ReplicaConfig {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// Rule that it breaks.
        rule: &'static str,
    },
}
