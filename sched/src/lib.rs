//! Decisions: pure state machines and latency models; knows no clock, socket, tensor or JSON.
