//! The scheduler by scenarios, under random events, and as giver and reader in one simulated network.

mod backend;
mod oracle;
mod pair;
mod random;
mod scenarios;
mod scheduling;
mod script;
mod show;
mod words;
