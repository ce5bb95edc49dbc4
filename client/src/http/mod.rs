//! HTTP/1.1 client with TLS and event streams: targets, connections, SSE. Knows the JSON of the API only in `chunk`.

mod answer;
mod chunk;
mod client;
mod pool;
mod sse;
mod stream;
mod target;
mod tls;

pub use answer::Answer;
pub use chunk::{Chunk, ChunkChoice, Usage};
pub use client::{Client, Deadlines};
pub use sse::SseParser;
pub use stream::EventStream;
pub use target::Target;
pub use tls::Trust;
