//! The scheduler by scenarios, under random events, and against a second one of itself.
