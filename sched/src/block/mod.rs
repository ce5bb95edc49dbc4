//! Accounting of KV blocks: who refers to them, what they hold, who may still write to them; knows no bytes.

mod hash;
mod lru;
mod pool;
mod table;

pub use hash::{ContentHash, HASH_UNIT_TOKENS, HashChain};
pub use pool::{BlockPool, BlockState, Holdings};
pub use table::{BlockTable, blocks_for};
