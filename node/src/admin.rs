//! Admin HTTP surface of a process: health, readiness, metrics, version. Knows nothing of what the process does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::Service;

use crate::door::{ConnectionLimits, Guard, Phase, ReadingPace, connections_within_files, serve};
use crate::key::KeyDigest;
use crate::telemetry::Metrics;

/// Time between two foldings of histograms, whose samples would otherwise pile up between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Paths that load balancers and people ask without a key.
pub const OPEN: [&str; 3] = ["/health", "/ready", "/version"];

/// What is set with a POST is said in a few words.
const KNOB_BYTES_MAX: usize = 4 << 10;
/// Few are needed, for scrapes and probes.
const CONNECTIONS_MAX: usize = 64;
const LIMITS: ConnectionLimits = ConnectionLimits {
    connections_max: CONNECTIONS_MAX,
    head_time_max: Duration::from_secs(75),
    reading: ReadingPace { behind_max: Duration::from_secs(10), bytes_per_s_min: 16 << 10 },
};

/// Whether a process takes work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not ready yet; waits for this.
    Starting(String),
    /// Takes work.
    Ready,
    /// Takes no new work any more.
    Draining,
}

/// Readiness of a process; clones share it.
#[derive(Debug, Clone)]
pub struct Gate {
    state: Arc<watch::Sender<Readiness>>,
}

impl Gate {
    /// Makes a gate that stays shut until `what` is there.
    #[must_use]
    pub fn starting(what: impl Into<String>) -> Gate {
        Gate { state: Arc::new(watch::Sender::new(Readiness::Starting(what.into()))) }
    }

    /// Shuts the gate until `what` is there.
    pub fn waits_for(&self, what: impl Into<String>) {
        self.change(Readiness::Starting(what.into()));
    }

    /// Opens the gate, unless the process drains already.
    pub fn open(&self) {
        self.change(Readiness::Ready);
    }

    /// Shuts the gate for good.
    pub fn drain(&self) {
        self.state.send_replace(Readiness::Draining);
    }

    /// Returns the readiness now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.state.borrow().clone()
    }

    /// Resolves when the gate is open.
    pub async fn opened(&self) {
        // Waiting cannot fail, as `self` holds the sender.
        let _ = self.state.subscribe().wait_for(|readiness| *readiness == Readiness::Ready).await;
    }

    fn change(&self, readiness: Readiness) {
        self.state.send_if_modified(|now| {
            let changes = *now != Readiness::Draining && *now != readiness;
            if changes {
                *now = readiness;
            }
            changes
        });
    }
}

/// Answer of `/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Version of Baton.
    pub version: &'static str,
    /// Role of the process.
    pub role: String,
    /// Other facts that distinguish this process: model, backend, instance.
    #[serde(flatten)]
    pub facts: std::collections::BTreeMap<String, String>,
}

impl Version {
    /// Makes the version of a process with this role.
    #[must_use]
    pub fn of_role(role: impl Into<String>) -> Version {
        Version { version: env!("CARGO_PKG_VERSION"), role: role.into(), facts: std::collections::BTreeMap::new() }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, fact: &str, value: impl Into<String>) -> Version {
        self.facts.insert(fact.to_owned(), value.into());
        self
    }
}

/// Something of the process that operators look at and set, as JSON.
pub trait Knob: Send + Sync {
    /// Path that shows it (`GET`), and path that sets it (`POST`).
    fn paths(&self) -> (&'static str, &'static str);

    /// What it is, and why.
    fn show(&self) -> Value;

    /// Sets it, and returns what it is then.
    ///
    /// # Errors
    /// What is wrong with the body, or why it cannot be set now.
    fn set<'a>(&'a self, body: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Value, Unset>> + Send + 'a>>;
}

/// Why a [`Knob`] was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unset {
    /// The body says nothing that can be set.
    Wrong(String),
    /// The process cannot do it now.
    Unable(String),
}

/// State that the admin surface shows.
#[derive(Clone)]
pub struct Admin {
    /// Readiness.
    pub gate: Gate,
    /// Metrics.
    pub metrics: Metrics,
    /// Version.
    pub version: Version,
    /// Key of the operators, who alone may then read metrics.
    pub key: Option<KeyDigest>,
    /// What else operators may look at and set.
    pub knobs: Vec<Arc<dyn Knob>>,
}

impl Admin {
    fn routes(self) -> Router {
        let knobs = self.knobs.iter().fold(Router::new(), |routes, knob| {
            let ((shown_at, set_at), shown, taken) = (knob.paths(), Arc::clone(knob), Arc::clone(knob));
            let show = move || async move { Json(shown.show()) };
            let set = move |body: Bytes| async move { set(taken.as_ref(), &body).await };
            routes.route(shown_at, get(show)).route(set_at, post(set))
        });
        Router::new()
            .route("/health", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/version", get(version))
            .with_state(Arc::new(self))
            .merge(knobs.layer(DefaultBodyLimit::max(KNOB_BYTES_MAX)))
            .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") })
            .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
                (StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}\n", uri.path()))
            })
    }

    /// Serves the routes until `shutdown`; fails when the listener does.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let (upkeep, key) = (upkeep(self.metrics.clone()), self.key);
        tokio::select! {
            served = serve_operators(self.routes(), key, listener, shutdown) => served,
            () = upkeep => Ok(()),
        }
    }
}

/// Serves the routes of an admin surface until `shutdown`; with a key, all but health, readiness and version need it.
///
/// # Errors
/// When the listener has no address.
pub async fn serve_operators(
    routes: Router,
    key: Option<KeyDigest>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let guard = Arc::new(Guard::new(listener.local_addr()?, "", &[], &[]));
    let (door, phase) = watch::channel(Phase::Open);
    let answer = move |request: axum::extract::Request| {
        let (guard, mut routes) = (Arc::clone(&guard), routes.clone());
        async move {
            match guard.check(&request) {
                Ok(()) if !may_enter(&request, key) => stranger(),
                Ok(()) => routes.call(request).await.unwrap_or_else(|never| match never {}),
                Err(strange) => (strange.status(), format!("{strange}\n")).into_response(),
            }
        }
    };
    let shut = async move {
        shutdown.await;
        door.send_replace(Phase::Shut);
        std::future::pending::<()>().await;
    };
    let limits = ConnectionLimits { connections_max: connections_within_files(CONNECTIONS_MAX), ..LIMITS };
    tokio::select! {
        () = serve(listener, (limits, None), phase, answer) => Ok(()),
        () = shut => Ok(()),
    }
}

fn may_enter(request: &axum::extract::Request, key: Option<KeyDigest>) -> bool {
    key.is_none_or(|key| OPEN.contains(&request.uri().path()) || KeyDigest::presented(request.headers()).is(&key))
}

fn stranger() -> Response {
    let wants = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, wants, "needs the admin key: 'Authorization: Bearer KEY' (admin.key_sha256)\n")
        .into_response()
}

/// Folds histograms for ever; must run beside every `/metrics` that is served without [`Admin::run`].
pub async fn upkeep(metrics: Metrics) {
    let mut beat = tokio::time::interval(UPKEEP);
    loop {
        beat.tick().await;
        metrics.upkeep();
    }
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.gate.readiness() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::Starting(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("waits for {what}\n")).into_response(),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "drains\n").into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let mut page = admin.metrics.render();
    admin.metrics.names().or_asked_by(query.as_deref()).complete(&mut page);
    (kind, page).into_response()
}

async fn set(knob: &dyn Knob, body: &[u8]) -> Response {
    match knob.set(body).await {
        Ok(value) => Json(value).into_response(),
        Err(Unset::Wrong(problem)) => (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
        Err(Unset::Unable(problem)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

async fn version(State(admin): State<Arc<Admin>>) -> Json<Version> {
    Json(admin.version.clone())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    use super::*;

    fn admin() -> Admin {
        let version = Version::of_role("decode").with("model", "demo");
        Admin { gate: Gate::starting("the model"), metrics: Metrics::detached(), version, key: None, knobs: Vec::new() }
    }

    async fn get(admin: &Admin, path: &str) -> (u16, String) {
        answered(admin, Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn answered(admin: &Admin, request: Request<Body>) -> (u16, String) {
        let response = admin.clone().routes().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_gate_and_draining_is_final() {
        let admin = admin();
        assert_eq!(get(&admin, "/health").await, (200, "ok\n".into()));
        assert_eq!(get(&admin, "/ready").await, (503, "waits for the model\n".into()));
        admin.gate.open();
        assert_eq!(get(&admin, "/ready").await, (200, "ready\n".into()));
        admin.gate.drain();
        admin.gate.open();
        assert_eq!(get(&admin, "/ready").await, (503, "drains\n".into()));
        assert_eq!(get(&admin, "/health").await, (200, "ok\n".into()));
    }

    #[tokio::test]
    async fn version_and_metrics_answer() {
        let admin = admin();
        let (status, body) = get(&admin, "/version").await;
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!((status, body), (200, format!(r#"{{"version":"{version}","role":"decode","model":"demo"}}"#)));
        assert_eq!(get(&admin, "/metrics").await.0, 200);
        assert_eq!(get(&admin, "/nothing").await, (404, "there is nothing here\n".into()));
        let request = Request::post("/version").body(Body::empty()).unwrap();
        assert_eq!(answered(&admin, request).await, (405, "/version does not take POST\n".into()));
    }

    struct Dial(std::sync::Mutex<Value>);

    impl Knob for Dial {
        fn paths(&self) -> (&'static str, &'static str) {
            ("/debug/dial", "/admin/dial")
        }

        fn show(&self) -> Value {
            self.0.lock().unwrap().clone()
        }

        fn set<'a>(&'a self, body: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Value, Unset>> + Send + 'a>> {
            let wanted = serde_json::from_slice(body).map_err(|error| Unset::Wrong(error.to_string()));
            Box::pin(async move {
                *self.0.lock().unwrap() = wanted?;
                Ok(self.show())
            })
        }
    }

    #[tokio::test]
    async fn knobs_are_shown_and_set() {
        let admin = Admin { knobs: vec![Arc::new(Dial(Value::from(3).into()))], ..admin() };
        assert_eq!(get(&admin, "/debug/dial").await, (200, "3".into()));
        for (body, status) in [("5", 200), ("nonsense", 400), (&*"1".repeat(5 << 10), 413)] {
            let request = Request::post("/admin/dial").body(Body::from(body.to_owned())).unwrap();
            assert_eq!(admin.clone().routes().oneshot(request).await.unwrap().status().as_u16(), status, "{body}");
        }
        assert_eq!(get(&admin, "/debug/dial").await, (200, "5".into()));
    }

    async fn status(address: std::net::SocketAddr, path: &str, header: &str) -> String {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer["HTTP/1.1 ".len()..][..3].to_owned()
    }

    #[tokio::test]
    async fn metrics_need_the_key_where_there_is_one() {
        let admin = Admin { key: Some(KeyDigest::of(b"sk-admin").unwrap()), ..admin() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(admin.run(listener, std::future::pending()));
        let (right, wrong) = ("authorization: Bearer sk-admin\r\n", "authorization: Bearer sk-adminn\r\n");
        for (path, header, expected) in [
            ("/health", "", "200"),
            ("/ready", "", "503"),
            ("/version", "", "200"),
            ("/metrics", "", "401"),
            ("/metrics", wrong, "401"),
            ("/metrics", right, "200"),
            ("/nothing", "", "401"),
            ("/nothing", right, "404"),
        ] {
            assert_eq!(status(address, path, header).await, expected, "{path} {header}");
        }
    }
}
