//! Transport over shared memory of one host: the owner passes its memfds once, and the reader copies from its own
//! mapping of them. The owner takes no part in reads, so it can neither check nor stop them.

mod owner;
mod passing;
mod reader;

use std::sync::Arc;

use crate::copier::Copier;
use crate::host::Host;
use crate::outbox::Outbox;
use crate::token::{self, Token};
use crate::wire::{Reader, Writer};
use crate::{Serving, Setup, TransferError, Transport, TransportKind};

/// Opens a transport to processes of the same user and network namespace on this host.
pub fn open(setup: &Setup) -> Result<Transport, TransferError> {
    let (outbox, events) = Outbox::new(Arc::clone(&setup.notify));
    let (host, token) = (Host::here()?, Token::draw()?);
    let address = Address { boot: host.boot.clone(), name: format!("kv-transfer-{:032x}", token::random()?) };
    let owner = match setup.serving {
        Serving::Readers => Some(owner::Owner::listen(setup, &address.name, token, &outbox)?),
        Serving::Nobody => None,
    };
    let finder = reader::Finder { boot: host.boot, limits: setup.limits };
    let copier = Copier::start(TransportKind::Shm, "kv-shm", owner, Box::new(finder), outbox, setup.limits)?;
    Ok(Transport::new(TransportKind::Shm, setup, token, address.encode(), Box::new(copier), events))
}

/// Address of an owner: an abstract socket name, which leaves no file behind, and the boot id of its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    boot: String,
    name: String,
}

impl Address {
    fn encode(&self) -> Vec<u8> {
        Writer::new().string(self.boot.as_bytes()).string(self.name.as_bytes()).finish()
    }

    fn decode(address: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(address);
        let mut text = || reader.string().and_then(|bytes| str::from_utf8(bytes).ok()).map(str::to_owned);
        let (boot, name) = (text()?, text()?);
        reader.is_empty().then_some(Self { boot, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_encoding() {
        let address = Address { boot: "a-b".to_owned(), name: "kv-transfer-1".to_owned() };
        assert_eq!(Address::decode(&address.encode()), Some(address.clone()));
        let bytes = address.encode();
        assert_eq!(Address::decode(&bytes[..bytes.len() - 1]), None);
    }
}
