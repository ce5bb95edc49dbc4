//! The prefill role: serves the session with routers and gives KV to readers; knows no HTTP.
