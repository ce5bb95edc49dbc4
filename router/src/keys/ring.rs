//! All keys of a router: finds the key that a request presents, and lets it in within its limits; knows no endpoint.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{Method, Request};
use metrics::counter;
use node::admin::OPEN;
use node::key::{KeyDigest, Presented};
use node::names;
use sched::quota::Exceeded;

use super::config::KeyConfig;
use super::key::{Counts, Key, Visit, Visitor};
use crate::clock::Clock;
use crate::openai::ApiError;

const ROLE: &str = "router";
/// Path that shows what all users do, so a user's key does not open it.
const METRICS: &str = "/metrics";

/// Keys that let clients in; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    lock: Lock,
    /// Key of the operators.
    admin: Option<KeyDigest>,
    clock: Clock,
}

#[derive(Debug, Clone)]
enum Lock {
    /// Whoever comes may come in.
    Open,
    /// Only holders of a key may.
    Keys(Arc<RwLock<Ring>>),
}

type Ring = Vec<(KeyDigest, Arc<Key>)>;

/// What becomes of a request at the door.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It comes in.
    In(Visit),
    /// Its key has reached a limit.
    Exceeded(Visitor, ApiError),
    /// It has no key that would let it in.
    Stranger(ApiError),
}

/// Why a request is a stranger's.
#[derive(Debug, Clone, Copy)]
enum Stranger {
    NoKey,
    WrongKey,
    NoAdmin,
}

impl Keys {
    /// Makes a door that everybody may pass.
    pub(crate) fn open(admin: Option<KeyDigest>, clock: Clock) -> Keys {
        Keys { lock: Lock::Open, admin, clock }
    }

    /// Makes a door that holders of these keys may pass.
    pub(crate) fn locked(keys: &[KeyConfig], admin: Option<KeyDigest>, clock: Clock) -> Keys {
        let ring = keys.iter().map(|key| (key.sha256, Arc::new(Key::new(key, clock, None)))).collect();
        Keys { lock: Lock::Keys(Arc::new(RwLock::new(ring))), admin, clock }
    }

    /// Replaces all keys. What is running goes on; a key of the same name keeps what it has used.
    pub(super) fn replace(&self, keys: &[KeyConfig]) {
        let Lock::Keys(ring) = &self.lock else { return };
        let mut ring = ring.write().unwrap_or_else(PoisonError::into_inner);
        let former = |name: &str| ring.iter().map(|(_, key)| &**key).find(|key| key.name() == name);
        let now = keys.iter().map(|key| (key.sha256, Arc::new(Key::new(key, self.clock, former(&key.name)))));
        let now: Ring = now.collect();
        *ring = now;
    }

    /// Decides by the head of a request. Reads no body, and costs the same for every wrong key.
    pub(crate) fn receive<B>(&self, request: &Request<B>) -> Entry {
        match self.key_of(request) {
            Ok(Some(key)) => enter(&key, request.method()),
            Ok(None) => Entry::In(Visit::new(Visitor::default(), Counts::No)),
            Err(stranger) => Entry::Stranger(stranger.turned_away()),
        }
    }

    /// Returns the refusal of a request whose sender may not use this path, whatever else is wrong with it. Counts
    /// nothing against a key.
    pub(crate) fn stranger<B>(&self, request: &Request<B>) -> Option<ApiError> {
        self.key_of(request).err().map(Stranger::turned_away)
    }

    /// Returns the key by which a request may enter; `None` if it needs none.
    fn key_of<B>(&self, request: &Request<B>) -> Result<Option<Arc<Key>>, Stranger> {
        let path = request.uri().path();
        if path == METRICS {
            return self.is_operator(request).then_some(None).ok_or(Stranger::NoAdmin);
        }
        let Lock::Keys(ring) = &self.lock else { return Ok(None) };
        if OPEN.contains(&path) {
            return Ok(None);
        }
        match KeyDigest::presented(request.headers()) {
            Presented::Nothing => Err(Stranger::NoKey),
            Presented::NoKey => Err(Stranger::WrongKey),
            Presented::Key(digest) => {
                let found = find(&ring.read().unwrap_or_else(PoisonError::into_inner), &digest);
                found.map(Some).ok_or(Stranger::WrongKey)
            }
        }
    }

    fn is_operator<B>(&self, request: &Request<B>) -> bool {
        match (&self.admin, &self.lock) {
            (None, Lock::Open) => true,
            (Some(admin), _) => KeyDigest::presented(request.headers()).is(admin),
            (None, Lock::Keys(_)) => false,
        }
    }
}

/// Compares with every key, so that the time does not tell which one fits.
fn find(ring: &Ring, digest: &KeyDigest) -> Option<Arc<Key>> {
    let mut found = None;
    for (known, key) in ring {
        if known.is(digest) {
            found = Some(key);
        }
    }
    found.cloned()
}

/// Only what makes work counts; a list of models may be asked for at any time.
fn enter(key: &Arc<Key>, method: &Method) -> Entry {
    let visitor = Visitor::holding(key);
    if *method != Method::POST {
        return Entry::In(Visit::new(visitor, Counts::No));
    }
    match key.begin() {
        Ok(()) => Entry::In(Visit::new(visitor, Counts::Yes)),
        Err(exceeded) => Entry::Exceeded(visitor, refused(exceeded)),
    }
}

fn refused(exceeded: Exceeded) -> ApiError {
    let message = format!("Rate limit reached: this API key allows {exceeded}.");
    ApiError::rate_limited(message, exceeded.wait())
}

impl Stranger {
    fn turned_away(self) -> ApiError {
        let (reason, message) = match self {
            Stranger::NoKey => (
                "missing",
                "You didn't provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY' (or \
                 'x-api-key: YOUR_KEY').",
            ),
            Stranger::WrongKey => ("wrong", "Incorrect API key provided."),
            Stranger::NoAdmin => (
                "no_admin",
                "The metrics of this server need the admin key (admin.key_sha256), or are read at router.admin_listen.",
            ),
        };
        counter!(names::KEY_REFUSED_TOTAL, "role" => ROLE, "reason" => reason).increment(1);
        ApiError::unauthorized(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::Advice;

    fn key(name: &str) -> KeyConfig {
        KeyConfig::unlimited(name, KeyDigest::of(format!("sk-{name}").as_bytes()).unwrap())
    }

    fn request(method: Method, path: &str, key: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(path);
        let request = if key.is_empty() { request } else { request.header("authorization", format!("Bearer {key}")) };
        request.body(()).unwrap()
    }

    fn name_of(entry: &Entry) -> Result<Option<String>, u16> {
        match entry {
            Entry::In(visit) => Ok(visit.visitor().name().map(str::to_owned)),
            Entry::Exceeded(_, error) | Entry::Stranger(error) => Err(error.status),
        }
    }

    fn asks(keys: &Keys, path: &str, key: &str) -> Result<Option<String>, u16> {
        name_of(&keys.receive(&request(Method::POST, path, key)))
    }

    #[test]
    fn a_key_lets_in_and_all_else_does_not() {
        let keys = Keys::locked(&[key("ann"), key("bot")], None, Clock::start());
        assert_eq!(asks(&keys, "/v1/models", "sk-ann"), Ok(Some("ann".to_owned())));
        assert_eq!(asks(&keys, "/nothing", "sk-bot"), Ok(Some("bot".to_owned())));
        for wrong in ["", "sk-an", "sk-annn", "SK-ANN", "sk-ann sk-bot"] {
            assert_eq!(asks(&keys, "/v1/models", wrong), Err(401), "{wrong:?}");
        }
        for path in OPEN {
            assert_eq!(asks(&keys, path, ""), Ok(None), "{path}");
        }
        for path in ["/health/", "/v1/models/health", "/", "/metrics"] {
            assert_eq!(asks(&keys, path, ""), Err(401), "{path}");
        }
        assert_eq!(asks(&Keys::open(None, Clock::start()), "/v1/models", ""), Ok(None));
        assert_eq!(asks(&Keys::locked(&[], None, Clock::start()), "/v1/models", "sk-ann"), Err(401), "nobody may");
    }

    #[test]
    fn metrics_are_for_operators() {
        let (clock, admin) = (Clock::start(), Some(key("admin").sha256));
        for (keys, open, user, operator) in [
            (Keys::open(None, clock), Ok(None), Ok(None), Ok(None)),
            (Keys::open(admin, clock), Err(401), Err(401), Ok(None)),
            (Keys::locked(&[key("ann")], None, clock), Err(401), Err(401), Err(401)),
            (Keys::locked(&[key("ann")], admin, clock), Err(401), Err(401), Ok(None)),
        ] {
            let seen = ["", "sk-ann", "sk-admin"].map(|key| asks(&keys, "/metrics", key));
            assert_eq!(seen, [open, user, operator]);
        }
        let keys = Keys::locked(&[key("ann")], admin, clock);
        assert_eq!(asks(&keys, "/v1/models", "sk-admin"), Err(401), "an operator is no user");
    }

    #[test]
    fn limits_hold_for_work_and_end_with_it_and_outlive_a_reload() {
        let limited = KeyConfig { concurrency_max: 1, requests_per_minute: 3, ..key("ann") };
        let keys = Keys::locked(std::slice::from_ref(&limited), None, Clock::start());
        let post = |keys: &Keys| keys.receive(&request(Method::POST, "/v1/completions", "sk-ann"));
        let first = post(&keys);
        assert!(matches!(first, Entry::In(_)));
        assert_eq!(name_of(&keys.receive(&request(Method::GET, "/v1/models", "sk-ann"))), Ok(Some("ann".to_owned())));
        keys.replace(std::slice::from_ref(&limited));
        assert_eq!(name_of(&post(&keys)), Err(429), "the first one still runs");
        drop(first);
        assert!(name_of(&post(&keys)).is_ok() && name_of(&post(&keys)).is_ok());
        let Entry::Exceeded(visitor, error) = post(&keys) else { panic!("the minute is used up") };
        assert_eq!(visitor.name(), Some("ann"));
        assert_eq!(
            (error.code, error.message.as_str()),
            (Some("rate_limit_exceeded"), "Rate limit reached: this API key allows 3 requests per minute.")
        );
        let Some(Advice::RetryAfter(wait)) = error.advice else { panic!("no time to come back") };
        assert!(wait.us() > 19_000_000 && wait.us() <= 20_000_000, "{wait}");
        keys.replace(&[]);
        assert_eq!(name_of(&post(&keys)), Err(401), "the key is gone");
    }
}
