//! What every process shares: configuration loading, telemetry, admin HTTP, drain.
