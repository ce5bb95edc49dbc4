//! Receives every request as soon as the connection has it, so that each is counted once whatever becomes of it: names
//! it, opens its account, admits or refuses it, and counts its answer.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use node::contained::said;
use node::door::{Guard, Strange};
use sched::{Failure, FailureKind, RequestId};
use tower::Service;
use tracing::error;

use super::App;
use super::request_id;
use crate::metrics::{Account, ResponseCount};
use crate::openai::ApiError;

/// Header that names the latency class where the body does not.
pub(super) const CLASS_HEADER: &str = "x-baton-slo-class";
/// Headers that pages of allowed origins may send, and may read.
const PAGE_SENDS: &str = "authorization, content-type, x-baton-slo-class, x-request-id";
const PAGE_READS: &str = "retry-after, retry-after-ms, x-request-id";
/// Seconds for which a browser may remember these permissions.
const PAGE_REMEMBERS_S: &str = "600";

/// Paths that generate tokens; only their requests have accounts.
const GENERATING: [&str; 2] = ["/v1/chat/completions", "/v1/completions"];
/// All other paths; unknown paths count under one name, or clients could make any number of series.
const OTHERS: [&str; 7] = ["/v1/models", "/tokenize", "/detokenize", "/health", "/ready", "/version", "/metrics"];

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
    routes: axum::Router,
}

impl Reception {
    pub(crate) fn new(app: Arc<App>, guard: Guard, routes: axum::Router) -> Reception {
        Reception { app, guard: Arc::new(guard), routes }
    }

    /// Answers a request, which is counted before the first `await`.
    pub(crate) fn receive(&self, mut request: Request<Body>) -> impl Future<Output = Response> + Send + use<> {
        let (name, id) = request_id::name_of(&self.app, &request);
        let count = ResponseCount::open(path_of(request.uri().path()));
        let arrival =
            self.account_for(&request, (&name, id)).map(|account| Arrival(Arc::new(Mutex::new(Some(account)))));
        if let Some(arrival) = &arrival {
            request.extensions_mut().insert(arrival.clone());
        }
        let (guard, mut routes) = (Arc::clone(&self.guard), self.routes.clone());
        async move {
            let origin = guard.named_origin(request.headers());
            let answered = match guard.check(&request) {
                Ok(()) if is_preflight(&request) => preflight(),
                Ok(()) => answered(routes.call(request)).await,
                Err(strange) => refused(&strange).into_response(),
            };
            close(arrival.as_ref(), answered.status());
            let mut response = answered;
            request_id::write(&mut response, &name);
            if let Some(origin) = origin {
                let_page_read(&mut response, &origin);
            }
            count.close(response.status().as_u16());
            response
        }
    }

    fn account_for(&self, request: &Request<Body>, (name, id): (&str, RequestId)) -> Option<Account> {
        let generates = request.method() == Method::POST && GENERATING.contains(&request.uri().path());
        if !generates {
            return None;
        }
        // The header counts from the first gate on. An unknown class is refused later, unless the body names one.
        let (app, named) = (&self.app, class_of(request));
        let class = app.config.slo.resolve(named.as_deref()).or_else(|_| app.config.slo.resolve(None)).ok()?;
        Some(Account::open(&app.metrics, app.clock, &app.config.slo, class, (name.to_owned(), id)))
    }
}

pub(super) fn class_of(request: &Request<Body>) -> Option<String> {
    request.headers().get(CLASS_HEADER).map(|class| String::from_utf8_lossy(class.as_bytes()).into_owned())
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
    let kind = if status.is_server_error() { FailureKind::Internal } else { FailureKind::InvalidRequest };
    account.failed(&ApiError::from(Failure::new(kind, "")));
}

fn refused(strange: &Strange) -> ApiError {
    match strange {
        Strange::Host(_) => ApiError::forbidden("host_not_allowed", format!("{strange}.")),
        Strange::Origin(_) => ApiError::forbidden("origin_not_allowed", format!("{strange}.")),
        Strange::Twice(_) | Strange::NoHost => ApiError::malformed(format!("{strange}.")),
        Strange::NotJson(_) | Strange::Encoded(_) => ApiError::not_json(format!("{strange}.")),
    }
}

/// Returns true if a browser asks what a page may do; other origins have been refused by now.
fn is_preflight(request: &Request<Body>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(axum::http::header::ORIGIN)
}

fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, PAGE_SENDS),
        (ACCESS_CONTROL_MAX_AGE, PAGE_REMEMBERS_S),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn let_page_read(response: &mut Response, origin: &str) {
    let headers = response.headers_mut();
    if let Ok(origin) = HeaderValue::try_from(origin) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(PAGE_READS));
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}

/// Returns the name under which a path is counted.
fn path_of(path: &str) -> &'static str {
    if path.starts_with("/v1/models/") {
        return "/v1/models/{id}";
    }
    GENERATING.into_iter().chain(OTHERS).find(|known| *known == path).unwrap_or("other")
}
