//! Receives a request's body within its bounds of size, time and pace.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, Version};
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, timeout, timeout_at};

use super::App;
use crate::LimitsConfig;
use crate::admission::{Arriving, Permit};
use crate::openai::ApiError;

/// Window over which the pace of a body is measured.
const PACE_OVER: Duration = Duration::from_secs(5);
/// Bounds on what is thrown away of the body of a refused request.
const DISCARDED_BYTES_MAX: usize = 1 << 20;
const DISCARDING_TIME_MAX: Duration = Duration::from_secs(1);
/// First size of a body's buffer, whatever length is announced; it grows with the bytes that arrive.
const FIRST_BYTES: usize = 4 << 10;

/// Receives the whole body; returns it with the request's place inside. Fails when the body is too large, comes too
/// slowly or ends early, or when there is no room for it.
pub(super) async fn receive(app: &App, request: Request) -> Result<(Bytes, Permit), ApiError> {
    let limits = &app.config.limits;
    let mut arriving = app.admission.arrives()?;
    let announced = announced(request.headers(), limits)?;
    let whole = read(request.into_body(), announced, limits, &mut arriving).await?;
    Ok((whole, arriving.enter()?))
}

/// Throws away what comes of the body of a refused request, for a while: a client that is still sending would get a
/// reset instead of the answer. HTTP/2 ends a stream without that, and who waits for `100 Continue` sends nothing yet.
pub(super) async fn discard(request: Request) {
    if request.version() == Version::HTTP_2 || request.headers().contains_key(EXPECT) {
        return;
    }
    let mut body = Limited::new(request.into_body(), DISCARDED_BYTES_MAX);
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whether all of it came or the time is up, the answer goes out now.
    let _ = timeout(DISCARDING_TIME_MAX, all).await;
}

/// Returns the announced length of the body.
fn announced(headers: &HeaderMap, limits: &LimitsConfig) -> Result<Option<usize>, ApiError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(bytes) if bytes > limits.body_bytes_max => Err(ApiError::body_too_large(limits.body_bytes_max)),
        length => Ok(length),
    }
}

async fn read(
    mut body: Body,
    announced: Option<usize>,
    limits: &LimitsConfig,
    arriving: &mut Arriving,
) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    let mut pace = Pace::begin(limits);
    while let Some(frame) = pace.hold(body.frame(), whole.len()).await? {
        let frame = frame.map_err(|error| ApiError::malformed(format!("the request body cannot be read: {error}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        if whole.len() + bytes.len() > limits.body_bytes_max {
            return Err(ApiError::body_too_large(limits.body_bytes_max));
        }
        arriving.grow(bytes.len())?;
        append(&mut whole, &bytes, announced);
    }
    Ok(whole.into())
}

/// Appends, growing the buffer with the bytes that arrived, not beyond the announced length.
fn append(whole: &mut Vec<u8>, bytes: &[u8], announced: Option<usize>) {
    if whole.capacity() - whole.len() < bytes.len() {
        let doubled = (2 * whole.len()).max(FIRST_BYTES);
        let wanted = announced.map_or(doubled, |announced| doubled.min(announced)).max(whole.len() + bytes.len());
        whole.reserve_exact(wanted - whole.len());
    }
    whole.extend_from_slice(bytes);
}

/// Pace at which a body must arrive.
struct Pace {
    time_max: Duration,
    end: Instant,
    bytes_per_window: usize,
    window_end: Instant,
    /// Bytes that must have arrived when the window ends.
    due: usize,
}

impl Pace {
    fn begin(limits: &LimitsConfig) -> Pace {
        let now = Instant::now();
        let time_max = Duration::from_millis(limits.body_ms_max);
        let per_window = limits.body_bytes_per_s_min.saturating_mul(PACE_OVER.as_secs());
        let bytes_per_window = usize::try_from(per_window).unwrap_or(usize::MAX);
        Pace { time_max, end: now + time_max, bytes_per_window, window_end: now + PACE_OVER, due: bytes_per_window }
    }

    /// Waits for `frame` as long as the pace is kept; `arrived` bytes came before it.
    async fn hold<T>(&mut self, frame: impl Future<Output = T>, arrived: usize) -> Result<T, ApiError> {
        let mut frame = std::pin::pin!(frame);
        loop {
            if let Ok(frame) = timeout_at(self.end.min(self.window_end), frame.as_mut()).await {
                return Ok(frame);
            }
            if Instant::now() >= self.end {
                return Err(ApiError::body_too_slow(self.time_max));
            }
            if arrived < self.due {
                return Err(ApiError::body_too_slow(PACE_OVER));
            }
            self.due = arrived.saturating_add(self.bytes_per_window);
            self.window_end += PACE_OVER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LimitsConfig {
        LimitsConfig { body_ms_max: 60_000, body_bytes_per_s_min: 100, ..LimitsConfig::default() }
    }

    /// Returns how long a body lives of which `bytes` come every `pause`.
    async fn lives(bytes: usize, pause: Duration) -> Duration {
        let (began, mut pace, mut arrived) = (Instant::now(), Pace::begin(&limits()), 0);
        while pace.hold(tokio::time::sleep(pause), arrived).await.is_ok() {
            arrived += bytes;
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_come_at_a_pace() {
        assert_eq!(lives(0, Duration::from_secs(1)).await, PACE_OVER, "nothing comes");
        assert_eq!(lives(99, Duration::from_secs(1)).await, PACE_OVER, "too little comes");
        assert_eq!(lives(8 << 20, Duration::from_secs(7)).await, PACE_OVER, "the first byte must not wait either");
        assert_eq!(lives(200, Duration::from_secs(1)).await, Duration::from_secs(60), "the whole has an end");
    }

    #[test]
    fn a_buffer_grows_with_what_arrives() {
        let mut whole = Vec::new();
        append(&mut whole, b"x", Some(8 << 20));
        assert_eq!(whole.capacity(), FIRST_BYTES);
        append(&mut whole, &[0; FIRST_BYTES], Some(FIRST_BYTES + 1));
        assert_eq!((whole.len(), whole.capacity()), (FIRST_BYTES + 1, FIRST_BYTES + 1));
    }
}
