//! Lossless conversion between sched types and wire messages; every count is bounded, every error names its field.

mod failure;
mod from_worker;
mod ids;
mod layout;
pub mod limits;
mod peer;
mod request;
#[cfg(test)]
mod roundtrip;
mod status;
mod to_worker;
mod token;

use thiserror::Error;

/// A type of this workspace and its message on the wire.
pub(crate) trait Wire: Sized {
    type Message;

    fn to_wire(&self) -> Self::Message;

    /// Converts a message that is complete and within bounds.
    fn from_wire(message: Self::Message) -> Result<Self, ConvertError>;
}

/// Error for an invalid message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("message {message}, field {field}: {problem}")]
pub struct ConvertError {
    /// Name of the message in `baton.v1`.
    pub message: &'static str,
    /// Name of the field.
    pub field: &'static str,
    /// Fault of the field.
    pub problem: Problem,
}

/// Fault of a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// The field is missing.
    #[error("is missing")]
    Missing,
    /// The field is empty.
    #[error("is empty")]
    Empty,
    /// The field has more elements (or bytes) than the limit.
    #[error("has {count}, more than {max}")]
    TooMany {
        /// Number of elements or bytes.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The number is above the limit.
    #[error("is {value}, more than {max}")]
    TooLarge {
        /// The number.
        value: u64,
        /// The limit.
        max: u64,
    },
    /// The enum value is unknown to this version.
    #[error("has the unknown value {0}")]
    Unknown(i32),
    /// The message as a whole contradicts itself.
    #[error("is not valid: {0}")]
    Rejected(String),
    /// The field may not come at this point.
    #[error("is not expected here")]
    Unexpected,
    /// The array has another length than the one it belongs to, or than it must have.
    #[error("has {count} elements where {pair} are expected")]
    Uneven {
        /// Elements of the array.
        count: usize,
        /// Elements that are expected.
        pair: usize,
    },
}

/// A field of a message, by the names of both, for checks and their errors.
#[derive(Clone, Copy)]
pub(crate) struct Field(pub(crate) &'static str, pub(crate) &'static str);

impl Field {
    pub(crate) fn error(self, problem: Problem) -> ConvertError {
        ConvertError { message: self.0, field: self.1, problem }
    }

    pub(crate) fn required<M>(self, value: Option<M>) -> Result<M, ConvertError> {
        value.ok_or(self.error(Problem::Missing))
    }

    pub(crate) fn take<T: Wire>(self, value: Option<T::Message>) -> Result<T, ConvertError> {
        T::from_wire(self.required(value)?)
    }

    pub(crate) fn take_all<T: Wire>(self, values: Vec<T::Message>, max: usize) -> Result<Vec<T>, ConvertError> {
        self.at_most(values.len(), max)?;
        values.into_iter().map(T::from_wire).collect()
    }

    pub(crate) fn at_most(self, count: usize, max: usize) -> Result<(), ConvertError> {
        if count > max { Err(self.error(Problem::TooMany { count, max })) } else { Ok(()) }
    }

    pub(crate) fn not_empty(self, count: usize) -> Result<(), ConvertError> {
        if count == 0 { Err(self.error(Problem::Empty)) } else { Ok(()) }
    }

    pub(crate) fn text(self, text: String, bytes_max: usize) -> Result<String, ConvertError> {
        self.at_most(text.len(), bytes_max)?;
        Ok(text)
    }

    pub(crate) fn exactly<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], ConvertError> {
        bytes.try_into().map_err(|_| self.error(Problem::Uneven { count: bytes.len(), pair: N }))
    }

    pub(crate) fn u16(self, value: u32) -> Result<u16, ConvertError> {
        u16::try_from(value).map_err(|_| self.too_large(value, u64::from(u16::MAX)))
    }

    pub(crate) fn u8(self, value: u32) -> Result<u8, ConvertError> {
        u8::try_from(value).map_err(|_| self.too_large(value, u64::from(u8::MAX)))
    }

    fn too_large(self, value: u32, max: u64) -> ConvertError {
        self.error(Problem::TooLarge { value: u64::from(value), max })
    }

    pub(crate) fn zip<A, B>(self, these: Vec<A>, pair: Vec<B>) -> Result<impl Iterator<Item = (A, B)>, ConvertError> {
        if these.len() != pair.len() {
            return Err(self.error(Problem::Uneven { count: these.len(), pair: pair.len() }));
        }
        Ok(these.into_iter().zip(pair))
    }
}
