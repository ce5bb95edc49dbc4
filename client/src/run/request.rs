//! One request from sending to its end: fills a record. Knows no other request.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use super::failure::{Failure, FailureKind};
use super::record::{Arrival, Record};
use crate::Error;
use crate::http::{Chunk, Client};

/// Events that a stream may have for each token that was asked for, and those that it may have anyway: a stream that
/// never ends must not fill the memory before its deadline.
const EVENTS_PER_TOKEN_MAX: usize = 4;
const EVENTS_FREE: usize = 1024;

/// End of all requests of a course that still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    GoOn,
    /// The time to drain is over, or the user wants the end.
    End(FailureKind),
}

/// Request that is ready to be sent.
pub(super) struct Request {
    pub(super) client: Client,
    pub(super) path: &'static str,
    pub(super) body: Bytes,
    pub(super) deadline: Duration,
    pub(super) phase: watch::Receiver<Phase>,
}

impl Request {
    /// Sends the request and reads its stream; `course_start` is the origin of the record's times.
    pub(super) async fn perform(self, mut record: Record, course_start: Instant) -> Record {
        let sent = Instant::now();
        record.sent_us = since_us(course_start, sent);
        let Request { client, path, body, deadline, mut phase } = self;
        let streamed = tokio::select! {
            streamed = timeout(deadline, stream(&client, path, body, sent, &mut record)) => match streamed {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Failure::from(error)),
                Err(_) => {
                    let message = format!("not ended after {deadline:?}");
                    Some(Failure { kind: FailureKind::Deadline, message })
                }
            },
            kind = ended(&mut phase) => Some(Failure { kind, message: "still running when the run ended".to_owned() }),
        };
        record.end_us = us(sent, Instant::now());
        record.failure = streamed.or_else(|| {
            let message = "the stream ended without a token".to_owned();
            record.arrivals.is_empty().then_some(Failure { kind: FailureKind::NoTokens, message })
        });
        record
    }
}

async fn stream(
    client: &Client,
    path: &'static str,
    body: Bytes,
    sent: Instant,
    record: &mut Record,
) -> Result<(), Error> {
    let events_max = record.output_tokens as usize * EVENTS_PER_TOKEN_MAX + EVENTS_FREE;
    let mut events = client.stream(path, body).await?;
    record.first_byte_us = Some(us(sent, events.arrived()));
    let (mut said_tokens, mut finished_us) = (0, None);
    while events.advance().await? {
        let chunk = Chunk::parse(events.data()).map_err(|source| events.malformed(source))?;
        if let Some(message) = chunk.error_message() {
            return Err(Error::ErrorEvent(message));
        }
        let mut tokens = chunk.tokens();
        if let Some(usage) = chunk.usage {
            // A server that counts in every event says how many tokens each holds.
            let said = u32::try_from(usage.completion_tokens).unwrap_or(u32::MAX);
            if tokens > 0 {
                tokens = said.saturating_sub(said_tokens).max(1);
            }
            said_tokens = said;
            record.usage = Some(usage);
        }
        if let Some(reason) = chunk.choices.into_iter().find_map(|choice| choice.finish_reason) {
            record.finish_reason = Some(reason);
            finished_us = Some(us(sent, events.arrived()));
        }
        if tokens > 0 {
            if record.arrivals.len() == events_max {
                let message = format!("more than {events_max} events for {} tokens", record.output_tokens);
                return Err(Error::ErrorEvent(message));
            }
            record.arrivals.push(Arrival { at_us: us(sent, events.arrived()), tokens });
        }
    }
    record
        .arrivals
        .extend(finished_us.filter(|_| record.has_tokens_without_text()).map(|at_us| Arrival { at_us, tokens: 1 }));
    Ok(())
}

/// Resolves when all requests must end.
async fn ended(phase: &mut watch::Receiver<Phase>) -> FailureKind {
    match phase.wait_for(|phase| *phase != Phase::GoOn).await.map(|phase| *phase) {
        Ok(Phase::End(kind)) => kind,
        Ok(Phase::GoOn) | Err(_) => FailureKind::Interrupted,
    }
}

/// Microseconds between two moments of one request; 71 minutes fit, and deadlines are shorter.
fn us(from: Instant, to: Instant) -> u32 {
    u32::try_from(since_us(from, to)).unwrap_or(u32::MAX)
}

/// Microseconds between two moments.
pub(super) fn since_us(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}
