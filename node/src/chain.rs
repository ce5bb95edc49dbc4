//! An error and its causes as the command line says them, for tests: each exactly once.

/// Every message of the chain, joined by `: `.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
