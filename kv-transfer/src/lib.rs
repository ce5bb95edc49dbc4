//! Moves bytes between workers; knows nothing of what a request means.
