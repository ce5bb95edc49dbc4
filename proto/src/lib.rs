//! The gRPC contracts between router and workers and between workers, and their conversion to sched types.
