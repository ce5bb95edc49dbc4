//! Model files, forward pass, KV bytes, sampling and the replica loop; knows no HTTP and no socket.
