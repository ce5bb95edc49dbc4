//! Refuses requests that a web page could have sent without its reader's knowledge; knows no route.
//!
//! A browser lets any page send requests to any address. Three rules keep out pages that the operator has not named. On
//! loopback, the `Host` must be a name of this machine, as a foreign name that resolves to 127.0.0.1 makes a foreign
//! page look like ours. An `Origin` must be ours or named. A request that changes something must be JSON, which no page
//! can send to another origin without asking first.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, Method, Request, StatusCode, Version};
use thiserror::Error;

use crate::bind::{host_and_port, is_host};

/// Most characters of a header that an error shows.
const SHOWN_CHARS_MAX: usize = 80;
/// Charsets whose texts are also UTF-8.
const UTF8_NAMES: [&str; 3] = ["utf-8", "utf8", "us-ascii"];

/// Rules of one listener.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Allowed hosts in lower case, without port; `None` for all.
    hosts: Option<Vec<String>>,
    /// Allowed origins in lower case; `*` for all.
    origins: Vec<String>,
}

/// Mark of a request that comes while all connections together have more requests than they may.
#[derive(Debug, Clone, Copy)]
pub struct Crowded;

/// Reason why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Strange {
    /// The host is none of ours.
    #[error("the Host header is {0:?}, which is not a name of this server (allowed_hosts)")]
    Host(String),
    /// The request comes from a page of another origin.
    #[error("requests of pages from {0:?} are not allowed here (allowed_origins)")]
    Origin(String),
    /// A header occurs twice, so that this check and a later reader could see different values.
    #[error("the header {0} is sent twice")]
    Twice(String),
    /// There are too many requests on the connections of HTTP/2.
    #[error("all connections together have too many requests")]
    Crowded,
    /// The request names no host, which HTTP/1.1 requires (RFC 9112, section 3.2).
    #[error("the request has no Host header")]
    NoHost,
    /// The body is not declared as JSON in UTF-8.
    #[error("the body must be sent with the header 'content-type: application/json', but its type is {0:?}")]
    NotJson(String),
    /// The body is compressed.
    #[error("the body must be sent as it is, but its content-encoding is {0:?}")]
    Encoded(String),
}

impl Strange {
    /// Returns the status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Strange::Host(_) | Strange::Origin(_) => StatusCode::FORBIDDEN,
            Strange::Twice(_) | Strange::NoHost => StatusCode::BAD_REQUEST,
            Strange::Crowded => StatusCode::TOO_MANY_REQUESTS,
            Strange::NotJson(_) | Strange::Encoded(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

impl Guard {
    /// Makes the rules for a listener at `address`, configured as `listen`. `hosts` are allowed besides; off loopback,
    /// all hosts are allowed if `hosts` is empty.
    #[must_use]
    pub fn new(address: SocketAddr, listen: &str, hosts: &[String], origins: &[String]) -> Guard {
        let strict = address.ip().is_loopback() || !hosts.is_empty();
        let configured = [host_of(listen).to_owned(), address.ip().to_string()];
        let named = || hosts.iter().map(|host| host_of(host).to_ascii_lowercase()).chain(configured.clone()).collect();
        Guard {
            hosts: strict.then(named),
            origins: origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect(),
        }
    }

    /// Checks a request; an error is the reason why it is refused.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Strange> {
        if request.extensions().get::<Crowded>().is_some() {
            return Err(Strange::Crowded);
        }
        let (headers, authority) = (request.headers(), request.uri().authority());
        if let Some(name) = [HOST, ORIGIN, CONTENT_TYPE, CONTENT_ENCODING]
            .into_iter()
            .find(|name| headers.get_all(name).iter().count() > 1)
        {
            return Err(Strange::Twice(name.to_string()));
        }
        let host = text_of(headers, &HOST);
        if host.is_none() && request.version() == Version::HTTP_11 {
            return Err(Strange::NoHost);
        }
        for host in [host.as_deref(), authority.map(axum::http::uri::Authority::as_str)].into_iter().flatten() {
            if !self.knows_host(host) {
                return Err(Strange::Host(shown(host)));
            }
        }
        // HTTP/2 has the host in the address of the request.
        let named = host.as_deref().or(authority.map(axum::http::uri::Authority::as_str));
        if let Some(origin) = origin_of(headers)
            && !self.lets_in(&origin)
            && !is_same(&origin, named)
        {
            return Err(Strange::Origin(shown(&origin)));
        }
        // No route takes a body with another method; the refusal of the method is the better answer.
        match *request.method() {
            Method::POST => check_json(headers).and_then(|()| check_encoding(headers)),
            _ => Ok(()),
        }
    }

    /// Returns the request's origin if the operator has named it: its pages may read the answer.
    #[must_use]
    pub fn named_origin(&self, headers: &HeaderMap) -> Option<String> {
        origin_of(headers).filter(|origin| self.lets_in(origin))
    }

    fn lets_in(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.origins.iter().any(|known| known == "*" || *known == origin)
    }

    fn knows_host(&self, host: &str) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let host = host_of(host).to_ascii_lowercase();
        let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let local = host == "localhost" || host.ends_with(".localhost");
        loopback || local || hosts.contains(&host)
    }
}

fn origin_of(headers: &HeaderMap) -> Option<String> {
    text_of(headers, &ORIGIN)
}

/// Returns true for the origin of a page that this server has sent.
fn is_same(origin: &str, host: Option<&str>) -> bool {
    let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    named.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
}

/// Accepts `application/json` and `application/…+json`, unless a parameter names a charset that is not UTF-8.
fn check_json(headers: &HeaderMap) -> Result<(), Strange> {
    let sent = text_of(headers, &CONTENT_TYPE).unwrap_or_default();
    let lower = sent.to_ascii_lowercase();
    let (kind, parameters) = lower.split_once(';').unwrap_or((&lower, ""));
    let kind = kind.trim();
    let is_kin = kind.starts_with("application/") && kind.ends_with("+json") && !kind.contains(char::is_whitespace);
    let is_json = kind == "application/json" || is_kin;
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    let is_utf8 = charset.is_none_or(|charset| UTF8_NAMES.contains(&charset.trim_matches('"')));
    if is_json && is_utf8 { Ok(()) } else { Err(Strange::NotJson(shown(&sent))) }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Strange> {
    match text_of(headers, &CONTENT_ENCODING) {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => Err(Strange::Encoded(shown(&encoding))),
        Some(_) | None => Ok(()),
    }
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Checks a host that an operator allows, without its port; fails when no request can name it.
pub fn check_host(host: &str) -> Result<(), String> {
    match is_host(host) || host.parse::<IpAddr>().is_ok() || host_and_port(host).is_ok() {
        true => Ok(()),
        false => Err(format!("is {host:?}, expected the name of a host, such as api.example")),
    }
}

/// Checks an origin that an operator allows; fails when no browser sends it.
pub fn check_origin(origin: &str) -> Result<(), String> {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
    };
    let is_origin = |(scheme, rest): (&str, &str)| {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        is_scheme(scheme)
            && !rest.is_empty()
            && !rest.contains(|letter: char| letter.is_whitespace() || "/?#@".contains(letter))
    };
    match origin == "*" || origin == "null" || origin.split_once("://").is_some_and(is_origin) {
        true => Ok(()),
        false => Err(format!(
            "is {origin:?}, expected * or scheme://host or scheme://host:port, such as https://chat.example"
        )),
    }
}

/// Returns the host of `host:port`, of `[address]:port`, or the text itself.
fn host_of(named: &str) -> &str {
    if let Some(bracketed) = named.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or_default();
    }
    match named.rsplit_once(':') {
        // More than one colon without brackets is an IPv6 address without a port.
        Some((host, _)) if !host.contains(':') => host,
        _ => named,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::*;

    fn guard(address: &str, hosts: &[&str], origins: &[&str]) -> Guard {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<String>>();
        Guard::new(address.parse().unwrap(), address, &owned(hosts), &owned(origins))
    }

    fn get(guard: &Guard, headers: &[(&'static str, &str)]) -> Result<(), Strange> {
        call(guard, &Method::GET, headers)
    }

    fn call(guard: &Guard, method: &Method, headers: &[(&'static str, &str)]) -> Result<(), Strange> {
        guard.check(&request(method, Uri::from_static("/"), headers))
    }

    /// HTTP/1.0 request, which needs no host.
    fn request(method: &Method, uri: Uri, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::builder().version(Version::HTTP_10).method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn on_loopback_the_host_must_be_this_machine() {
        let ours = guard("127.0.0.1:8000", &["gpu-box:9000"], &[]);
        for host in
            ["localhost", "localhost:8000", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "GPU-box", "a.localhost:1"]
        {
            assert_eq!(get(&ours, &[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(get(&ours, &[]), Ok(()), "HTTP/1.0 has none");
        for host in
            ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.1", "", "127.0.0.1.evil.example"]
        {
            assert_eq!(get(&ours, &[("host", host)]), Err(Strange::Host(host.to_owned())), "{host}");
        }
        let absolute = Uri::from_static("http://evil.example/v1/models");
        let absolute = request(&Method::GET, absolute, &[("host", "localhost")]);
        assert_eq!(ours.check(&absolute), Err(Strange::Host("evil.example".to_owned())));
    }

    #[test]
    fn a_request_of_today_names_a_host() {
        let mut unnamed = request(&Method::GET, Uri::from_static("/"), &[]);
        *unnamed.version_mut() = Version::HTTP_11;
        for address in ["127.0.0.1:8000", "0.0.0.0:8000"] {
            assert_eq!(guard(address, &[], &[]).check(&unnamed), Err(Strange::NoHost));
        }
    }

    #[test]
    fn off_loopback_hosts_are_checked_when_some_are_named() {
        assert_eq!(get(&guard("0.0.0.0:8000", &[], &[]), &[("host", "api.example")]), Ok(()));
        let named = guard("0.0.0.0:8000", &["api.example"], &[]);
        assert_eq!(get(&named, &[("host", "api.example:443")]), Ok(()));
        assert!(get(&named, &[("host", "evil.example")]).is_err());
    }

    #[test]
    fn one_request_too_many_is_refused_whatever_it_is() {
        let mut request = request(&Method::GET, Uri::from_static("/"), &[("host", "localhost")]);
        let ours = guard("127.0.0.1:8000", &[], &[]);
        assert_eq!(ours.check(&request), Ok(()));
        request.extensions_mut().insert(Crowded);
        assert_eq!(ours.check(&request), Err(Strange::Crowded));
    }

    #[test]
    fn over_http_2_the_address_of_a_request_is_its_host() {
        let ours = guard("127.0.0.1:8000", &[], &[]);
        let check = |origin: &str| {
            let uri = Uri::from_static("https://localhost:8000/");
            let mut request = request(&Method::GET, uri, &[("origin", origin)]);
            *request.version_mut() = Version::HTTP_2;
            ours.check(&request)
        };
        assert_eq!(check("https://localhost:8000"), Ok(()));
        assert!(matches!(check("https://localhost:3000"), Err(Strange::Origin(_))));
    }

    #[test]
    fn pages_of_other_origins_are_kept_out_unless_named() {
        let ours = guard("127.0.0.1:8000", &[], &["https://chat.example/"]);
        let from = |origin| get(&ours, &[("host", "localhost:8000"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8000"), Ok(()));
        assert_eq!(from("https://Chat.example"), Ok(()));
        for origin in ["http://localhost:3000", "https://evil.example", "null", "http://localhost:8000.evil.example"] {
            assert_eq!(from(origin), Err(Strange::Origin(origin.to_owned())));
        }
        assert_eq!(get(&guard("127.0.0.1:1", &[], &["*"]), &[("origin", "null")]), Ok(()));
    }

    /// Found by trying: the first counted, whatever the second said.
    #[test]
    fn what_is_checked_is_sent_once() {
        let ours = guard("127.0.0.1:8000", &[], &[]);
        for name in ["host", "origin", "content-type", "content-encoding"] {
            let refused = get(&ours, &[(name, "localhost"), (name, "evil.example")]);
            assert_eq!(refused, Err(Strange::Twice(name.to_owned())));
        }
    }

    #[test]
    fn what_changes_anything_is_json() {
        let ours = guard("127.0.0.1:8000", &[], &[]);
        let kinds = [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/vnd.api+json",
            "application/json;charset=\"UTF-8\"",
        ];
        for kind in kinds {
            assert_eq!(call(&ours, &Method::POST, &[("content-type", kind)]), Ok(()), "{kind}");
        }
        let strange = [
            "text/plain",
            "text/plain; application/json",
            "application/x-www-form-urlencoded",
            "",
            "text/json",
            "application/evil text+json",
            "application/json; charset=utf-16",
            "application/json;q=1; CHARSET=\"latin1\"",
        ];
        for kind in strange {
            let refused = call(&ours, &Method::POST, &[("content-type", kind)]);
            assert_eq!(refused, Err(Strange::NotJson(kind.to_owned())), "{kind}");
        }
        assert_eq!(call(&ours, &Method::POST, &[]), Err(Strange::NotJson(String::new())));
        for method in [Method::PUT, Method::PATCH, Method::DELETE] {
            assert_eq!(call(&ours, &method, &[]), Ok(()), "refused by the routes, as a method");
        }
    }

    #[test]
    fn what_no_request_can_name_is_no_rule() {
        for host in ["api.example", "gpu-box:9000", "10.0.0.7", "[::1]:80", "::1", "[::1]"] {
            assert_eq!(check_host(host), Ok(()), "{host:?}");
        }
        for host in ["", "http://a", "a/b", "a b", ":80", "[x]", "*"] {
            assert!(check_host(host).is_err(), "{host:?}");
        }
        for origin in
            ["*", "null", "https://chat.example", "http://localhost:3000/", "vscode-webview://a1b2", "http://[::1]:80"]
        {
            assert_eq!(check_origin(origin), Ok(()), "{origin:?}");
        }
        for origin in
            ["", "x", "https://", "https://a/b", "https://a?b", "https://me@a", "://a", "https:///", "https://a b"]
        {
            assert!(check_origin(origin).is_err(), "{origin:?}");
        }
    }

    #[test]
    fn bodies_come_as_they_are() {
        let ours = guard("127.0.0.1:8000", &[], &[]);
        let sent = |encoding| {
            call(&ours, &Method::POST, &[("content-type", "application/json"), ("content-encoding", encoding)])
        };
        assert_eq!(sent("identity"), Ok(()));
        for encoding in ["gzip", "br", "identity, gzip", ""] {
            assert_eq!(sent(encoding), Err(Strange::Encoded(encoding.to_owned())));
        }
    }
}
