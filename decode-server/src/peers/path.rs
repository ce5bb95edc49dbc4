//! State of the transport's path to a giver, and the failures after which it is not trusted; knows no giver.

use tokio::sync::watch;

/// Failed pulls in a row after which a giver's path is set up afresh.
const FAILED_PULLS_MAX: u32 = 3;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wire {
    Connecting,
    Up { bytes_per_second: f64 },
    Down { reason: String },
}

pub(super) struct Path {
    pub(super) wire: watch::Sender<Wire>,
    /// Failed pulls since the last success.
    failed_pulls: u32,
}

impl Path {
    /// Path of a giver to which the transport has just been told to connect.
    pub(super) fn connecting() -> Path {
        Path { wire: watch::Sender::new(Wire::Connecting), failed_pulls: 0 }
    }

    pub(super) fn pull_succeeded(&mut self) {
        self.failed_pulls = 0;
    }

    /// Counts a failed pull. True when too many failed in a row while the transport calls the path up; counting then
    /// starts again.
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
