//! Accounting of KV blocks: references to them, their content, and who may still write to them; knows no bytes.

mod hash;
mod lru;
mod pool;
mod table;

pub use hash::{ContentHash, HASH_UNIT_TOKENS, HashChain};
pub use pool::{BlockPool, BlockState, Holdings};
pub use table::{BlockTable, blocks_for};
