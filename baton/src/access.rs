//! Access to a server: what `chat` and `bench` show it and whom they trust; sends nothing.

use std::path::PathBuf;

use client::http::{Client, Trust};
use client::{Error, Result};

use crate::key::key_of_client;

/// Key and certificates of a client.
#[derive(Debug, clap::Args)]
pub struct AccessArgs {
    /// API key, sent as a bearer token; the environment's OPENAI_API_KEY if not given.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Certificates in PEM that https:// targets are checked with, instead of the authorities of the system.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl AccessArgs {
    /// Returns the client of a single target.
    pub fn client(&self, target: &str) -> Result<Client> {
        let client = self.made(target)?;
        self.check(std::slice::from_ref(&client))?;
        Ok(client)
    }

    /// Returns the clients of several targets, in their order.
    pub fn clients<'a>(&self, targets: impl Iterator<Item = &'a str>) -> Result<Vec<Client>> {
        let clients = targets.map(|target| self.made(target)).collect::<Result<Vec<_>>>()?;
        self.check(&clients)?;
        Ok(clients)
    }

    fn made(&self, target: &str) -> Result<Client> {
        let client = Client::trusting(target, &self.ca.clone().map_or(Trust::System, Trust::Only))?;
        match key_of_client(self.api_key.as_deref()) {
            Some(key) => client.with_api_key(&key),
            None => Ok(client),
        }
    }

    /// Who names certificates means a connection to be encrypted: that none would be is an error.
    fn check(&self, clients: &[Client]) -> Result<()> {
        match &self.ca {
            Some(_) if clients.iter().all(|client| !client.target().is_encrypted()) => {
                Err(Error::Settings("--ca is for https:// targets, and there is none".to_owned()))
            }
            _ => Ok(()),
        }
    }
}
