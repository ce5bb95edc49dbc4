//! The decode role: takes KV from givers and generates; aggregated is a decode worker that is sent whole requests.
