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

/// Checks a number of a replica's configuration.
pub(crate) fn check(
    field: &'static str,
    value: impl std::fmt::Display,
    holds: bool,
    rule: &'static str,
) -> Result<(), SchedError> {
    match holds {
        true => Ok(()),
        false => Err(SchedError::ReplicaConfig { field, value: value.to_string(), rule }),
    }
}
