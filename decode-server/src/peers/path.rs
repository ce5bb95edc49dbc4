//! How a giver's bytes come here, and when that way cannot be trusted any more; knows no giver.

use tokio::sync::watch;

/// Pulls of one giver that may fail in a row before its path is tried from the start.
const FAILED_PULLS_MAX: u32 = 3;

/// State of the transport's connection to a giver.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wire {
    /// The transport tries.
    Connecting,
    /// Bytes can be read, so fast.
    Up {
        /// Measured at connect.
        bytes_per_second: f64,
    },
    /// They cannot.
    Down {
        /// Why.
        reason: String,
    },
}

/// The wire and how it has served.
pub(super) struct Path {
    pub(super) wire: watch::Sender<Wire>,
    /// Pulls that failed since one succeeded.
    failed_pulls: u32,
}

impl Path {
    /// The transport has just been told.
    pub(super) fn connecting() -> Path {
        Path { wire: watch::Sender::new(Wire::Connecting), failed_pulls: 0 }
    }

    /// A pull has succeeded: the path is well.
    pub(super) fn pull_succeeded(&mut self) {
        self.failed_pulls = 0;
    }

    /// A pull has failed. True when so many have in a row that the path cannot be trusted any more, although the transport
    /// calls it well; then counting starts again.
    pub(super) fn pull_failed(&mut self) -> bool {
        self.failed_pulls += 1;
        let enough = self.failed_pulls >= FAILED_PULLS_MAX;
        if enough {
            self.failed_pulls = 0;
        }
        enough && matches!(*self.wire.borrow(), Wire::Up { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_that_fail_in_a_row_condemn_a_path_that_is_called_well() {
        let mut path = Path::connecting();
        path.wire.send_replace(Wire::Up { bytes_per_second: 1e9 });
        let fail = |path: &mut Path| (0..FAILED_PULLS_MAX).map(|_| path.pull_failed()).collect::<Vec<_>>();
        assert_eq!(fail(&mut path), [false, false, true]);
        assert_eq!([path.pull_failed(), path.pull_failed()], [false, false], "counting has started again");
        path.pull_succeeded();
        assert_eq!(fail(&mut path), [false, false, true], "one that succeeds shows that the path is well");
        path.wire.send_replace(Wire::Down { reason: "said already".to_owned() });
        assert_eq!(fail(&mut path), [false; 3]);
    }
}
