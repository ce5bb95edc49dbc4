//! Discrete-event simulation of the sched machines; knows no tokio and no network.
