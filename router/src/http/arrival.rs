//! Receives every request as soon as the connection has it, so that each is counted once whatever becomes of it: names
//! it, opens its account, admits or refuses it, and counts its answer.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use node::door::{Guard, Strange};
use sched::contained::said;
use sched::{Failure, FailureKind, Span};
use tower::Service;
use tracing::error;

use super::error_form::ErrorForm;
use super::{App, body, cors, reply, request_id};
use crate::keys::{Entry, Keys, Visit, Visitor};
use crate::metrics::{Account, Opening, ResponseCount};
use crate::openai::ApiError;
use crate::request_log;
use crate::traces::Parent;

/// Header that names the latency class where the body does not.
pub(super) const CLASS_HEADER: &str = "x-baton-slo-class";
/// Header that says to which trace a request belongs.
const TRACE_HEADER: &str = "traceparent";

/// Time after which a client should come again that found too many requests at the door.
const CROWDED_WAIT: Span = Span::from_secs(1);
/// Paths that generate tokens; only their requests have accounts.
pub(super) const GENERATING: &[&str] = &["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"];
/// All other known paths; unknown ones count under one name, or clients could make any number of series.
pub(super) const OTHERS: &[&str] = &[
    "/v1/models",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
    "/health",
    "/ready",
    "/version",
    "/metrics",
    "/openapi.json",
];
/// Name under which unknown paths count.
pub(super) const UNKNOWN: &str = "other";
/// Name under which the paths of single models count.
pub(super) const MODEL: &str = "/v1/models/{id}";

/// Account of a generating request on its way to the endpoint. Dropping the last clone closes the account.
#[derive(Clone)]
pub(super) struct Arrival(Arc<Mutex<Option<Account>>>);

impl Arrival {
    /// Takes the account; `None` the second time.
    pub(super) fn account(&self) -> Option<Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Front of one listener, which answers its requests.
#[derive(Clone)]
pub(crate) struct Reception {
    app: Arc<App>,
    guard: Arc<Guard>,
    keys: Keys,
    routes: axum::Router,
}

/// What becomes of a request, by its head alone.
enum Welcome {
    /// A browser asks what a page may do.
    Preflight,
    /// It goes on to its endpoint.
    In(Visit),
    /// It is wrong or comes from a page that may not use this server.
    Refused(ApiError),
    /// Its key has reached a limit.
    Exceeded(Visitor, ApiError),
    /// It has no key that would let it in.
    Stranger(ApiError),
}

impl Reception {
    pub(crate) fn new(app: Arc<App>, guard: Guard, keys: Keys, routes: axum::Router) -> Reception {
        Reception { app, guard: Arc::new(guard), keys, routes }
    }

    /// Answers a request, which is counted before the first `await`.
    pub(crate) fn receive(&self, mut request: Request<Body>) -> impl Future<Output = Response> + Send + use<> {
        let began = Instant::now();
        let (name, id) = request_id::name_of(&self.app, &request);
        let endpoint = path_of(request.uri().path());
        let form = ErrorForm::of(&request);
        let parent = parent_of(&request);
        let count = ResponseCount::open(endpoint);
        let welcome = self.welcome(&request);
        let account = welcome.visitor().and_then(|visitor| {
            request.extensions_mut().insert(visitor.clone());
            self.account_for(&request, Opening { name: &name, id, endpoint, parent, visitor })
        });
        let arrival = account.map(|account| Arrival(Arc::new(Mutex::new(Some(account)))));
        if let Some(arrival) = &arrival {
            request.extensions_mut().insert(arrival.clone());
        }
        let (guard, mut routes) = (Arc::clone(&self.guard), self.routes.clone());
        async move {
            let origin = guard.named_origin(request.headers());
            let mut response = match welcome {
                Welcome::Preflight => cors::preflight(request.headers()),
                Welcome::In(visit) => attended(answered(routes.call(request)).await, visit),
                Welcome::Refused(error) | Welcome::Stranger(error) => {
                    body::discard(request).await;
                    error.into_response()
                }
                Welcome::Exceeded(visitor, error) => {
                    body::discard(request).await;
                    let mut response = error.into_response();
                    visitor.write_levels(response.headers_mut());
                    response
                }
            };
            close(arrival.as_ref(), response.status());
            response = form.applied_to(response, &name);
            request_id::write(&mut response, &name);
            if let Some(origin) = origin {
                cors::let_page_read(&mut response, &origin);
            }
            let status = response.status().as_u16();
            if arrival.is_none() {
                request_log::other(&name, endpoint, status, began.elapsed());
            }
            count.close(status);
            response
        }
    }

    fn welcome(&self, request: &Request<Body>) -> Welcome {
        match self.guard.check(request) {
            // How a body is declared that no route reads does not matter: the refusal of the path or of the method is
            // the better answer.
            Err(Strange::NotJson(_) | Strange::Encoded(_)) if !super::takes_body(request.uri().path()) => {
                self.identified(request)
            }
            // Strangers learn nothing but that they are, and write no log line.
            Err(strange) => match self.keys.stranger(request).filter(|_| !cors::is_preflight(request)) {
                Some(error) => Welcome::Stranger(error),
                None => Welcome::Refused(refused(&strange)),
            },
            Ok(()) if cors::is_preflight(request) => Welcome::Preflight,
            Ok(()) => self.identified(request),
        }
    }

    fn identified(&self, request: &Request<Body>) -> Welcome {
        match self.keys.receive(request) {
            Entry::In(visit) => Welcome::In(visit),
            Entry::Exceeded(visitor, error) => Welcome::Exceeded(visitor, error),
            Entry::Stranger(error) => Welcome::Stranger(error),
        }
    }

    /// Opens an account for a request that generates tokens. Strangers have none: they are no users of any class, and a
    /// log line for each would let them fill the log.
    fn account_for(&self, request: &Request<Body>, opening: Opening<'_>) -> Option<Account> {
        let generates = request.method() == Method::POST && GENERATING.contains(&request.uri().path());
        if !generates {
            return None;
        }
        // The header counts from the first gate on. An unknown class is refused later, unless the body names one.
        let (app, named) = (&self.app, class_of(request));
        let class = app.config.slo.resolve(named.as_deref()).or_else(|_| app.config.slo.resolve(None)).ok()?;
        Some(Account::open(&app.metrics, app.clock, &app.config.slo, class, opening))
    }
}

impl Welcome {
    /// Returns who has come; `None` for strangers.
    fn visitor(&self) -> Option<Visitor> {
        match self {
            Welcome::In(visit) => Some(visit.visitor().clone()),
            Welcome::Exceeded(visitor, _) => Some(visitor.clone()),
            Welcome::Preflight | Welcome::Refused(_) => Some(Visitor::default()),
            Welcome::Stranger(_) => None,
        }
    }
}

fn parent_of(request: &Request<Body>) -> Option<Parent> {
    Parent::read(request.headers().get(TRACE_HEADER)?.to_str().ok()?)
}

/// Returns the latency class that the head of a request names, or that its key has.
pub(super) fn class_of(request: &Request<Body>) -> Option<String> {
    let named = request.headers().get(CLASS_HEADER).map(|class| String::from_utf8_lossy(class.as_bytes()).into_owned());
    named.or_else(|| visitor_of(request).slo_class().map(str::to_owned))
}

/// Returns who sends the request.
pub(super) fn visitor_of(request: &Request<Body>) -> Visitor {
    request.extensions().get::<Visitor>().cloned().unwrap_or_default()
}

/// Says what is left of the visitor's limits, and ends the visit with the answer.
fn attended(mut response: Response, visit: Visit) -> Response {
    if visit.visitor().name().is_none() {
        return response;
    }
    visit.visitor().write_levels(response.headers_mut());
    reply::keeping(response, visit)
}

/// Runs an endpoint; a panic fails its own request only.
async fn answered(call: impl Future<Output = Result<Response, std::convert::Infallible>>) -> Response {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            error!(reason = said(panic.as_ref()), "an endpoint has failed");
            ApiError::from(Failure::new(FailureKind::Internal, "the server has failed at this request")).into_response()
        }
    }
}

/// Closes an account that no endpoint has taken, with the outcome that the client was told.
fn close(arrival: Option<&Arrival>, status: StatusCode) {
    let Some(mut account) = arrival.and_then(Arrival::account) else { return };
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => FailureKind::Overloaded,
        _ if status.is_server_error() => FailureKind::Internal,
        _ => FailureKind::InvalidRequest,
    };
    account.failed(&ApiError { status: status.as_u16(), ..ApiError::from(Failure::new(kind, "")) });
}

fn refused(strange: &Strange) -> ApiError {
    match strange {
        Strange::Host(_) => ApiError::forbidden("host_not_allowed", format!("{strange}.")),
        Strange::Origin(_) => ApiError::forbidden("origin_not_allowed", format!("{strange}.")),
        Strange::Crowded => ApiError::overloaded(format!("The service is overloaded: {strange}."), CROWDED_WAIT),
        Strange::Twice(_) | Strange::NoHost => ApiError::malformed(format!("{strange}.")),
        Strange::NotJson(_) | Strange::Encoded(_) => ApiError::not_json(format!("{strange}.")),
    }
}

/// Returns the name under which a path is counted.
pub(super) fn path_of(path: &str) -> &'static str {
    if path.starts_with("/v1/models/") {
        return MODEL;
    }
    GENERATING.iter().chain(OTHERS).copied().find(|known| *known == path).unwrap_or(UNKNOWN)
}
