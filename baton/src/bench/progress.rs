//! Progress of a run on standard error; nothing unless that is a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::run::{Counts, Progress};
use tokio::task::AbortHandle;

const INTERVAL: Duration = Duration::from_millis(500);
const BAR_CELLS: usize = 30;

/// Bar that is redrawn until it is dropped.
pub(super) struct Bar(Option<AbortHandle>);

impl Bar {
    pub(super) fn start(progress: Arc<Progress>) -> Bar {
        if !std::io::stderr().is_terminal() {
            return Bar(None);
        }
        let begun = Instant::now();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let line = line(progress.counts(), begun.elapsed());
                let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
            }
        });
        Bar(Some(task.abort_handle()))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(counts: Counts, elapsed: Duration) -> String {
    let filled = (counts.ended * BAR_CELLS).checked_div(counts.planned).unwrap_or(0).min(BAR_CELLS);
    let bar = format!("{}{}", "#".repeat(filled), "-".repeat(BAR_CELLS - filled));
    let in_flight = counts.sent - counts.ended.min(counts.sent);
    let Counts { planned, sent, failed, .. } = counts;
    format!("[{bar}] {sent} of {planned} sent, {in_flight} in flight, {failed} failed, {} s", elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_shows_what_has_ended() {
        let counts = Counts { planned: 60, sent: 40, ended: 30, failed: 2 };
        assert_eq!(
            line(counts, Duration::from_secs(7)),
            "[###############---------------] 40 of 60 sent, 10 in flight, 2 failed, 7 s"
        );
        assert!(line(Counts::default(), Duration::ZERO).starts_with("[---"));
    }
}
