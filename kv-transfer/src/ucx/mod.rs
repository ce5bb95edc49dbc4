//! ucx
use crate::*;
/// Opens.
pub fn open(_: &Setup, _: &str) -> Result<Transport, TransferError> {
    Err(TransferError::NotBuilt { kind: TransportKind::Ucx })
}
