//! Target: address of a server as people copy it; opens nothing.

use std::fmt;
use std::net::Ipv6Addr;

use crate::Error;

/// Address of a server: with or without TLS, host and port, and the path before `/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) authority: String,
    /// Path before `/v1`, mostly empty.
    pub(crate) base: String,
}

/// Beginning of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn of(target: &str) -> (Scheme, Option<&str>) {
        match (target.strip_prefix("https://"), target.strip_prefix("http://")) {
            (Some(rest), _) => (Scheme::Https, Some(rest)),
            (None, rest) => (Scheme::Http, rest),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Target {
    /// Parses `http://host:port` or `https://host:port`, with or without the `/v1` of other clients; or `host:port` for
    /// plain HTTP, or a port alone for this host.
    pub fn parse(target: &str) -> Result<Target, Error> {
        let wrong = |problem| Error::Target { target: target.to_owned(), problem };
        let form = "expected http://HOST:PORT or https://HOST:PORT";
        let (scheme, url) = Scheme::of(target);
        let bare = url.unwrap_or(target);
        let (authority, path) = bare.split_once('/').unwrap_or((bare, ""));
        let authority = match url {
            // A URL may go without the port that belongs to its scheme.
            Some(_) if !authority.is_empty() && !is_host_and_port(authority) => {
                format!("{authority}:{}", scheme.port())
            }
            _ => authority.to_owned(),
        };
        let authority = if is_port(authority.strip_prefix(':').unwrap_or(&authority)) {
            format!("127.0.0.1:{}", authority.trim_start_matches(':'))
        } else {
            authority
        };
        if !is_host_and_port(&authority) {
            return Err(wrong(form));
        }
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("v1").filter(|rest| rest.is_empty() || rest.ends_with('/')).unwrap_or(path);
        if path.contains(|letter: char| !letter.is_ascii_graphic() || "?#".contains(letter)) {
            return Err(wrong(form));
        }
        let base = if path.is_empty() { String::new() } else { format!("/{}", path.trim_matches('/')) };
        Ok(Target { scheme, authority, base })
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// True if connections are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// Host without port, brackets and zone.
    pub(crate) fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inside.map_or(host, |inside| inside.split('%').next().unwrap_or(inside))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority, self.base)
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| is_port(port) && is_host(host))
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inside) => inside.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.chars().all(|letter| letter.is_alphanumeric() || "-._".contains(letter)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_understood_as_people_copy_them() {
        for (target, authority, base) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000", ""),
            ("http://127.0.0.1:8000/", "127.0.0.1:8000", ""),
            ("http://127.0.0.1:8000/v1", "127.0.0.1:8000", ""),
            ("http://127.0.0.1:8000/v1/", "127.0.0.1:8000", ""),
            ("localhost:8000/v1", "localhost:8000", ""),
            ("http://host/models/a/v1", "host:80", "/models/a"),
            ("http://[::1]:8000/v1", "[::1]:8000", ""),
            ("8000", "127.0.0.1:8000", ""),
            (":8000", "127.0.0.1:8000", ""),
            ("http://a:1/v11", "a:1", "/v11"),
            ("https://host/v1", "host:443", ""),
            ("https://host:8443/models/a/v1", "host:8443", "/models/a"),
        ] {
            let parsed = Target::parse(target).unwrap();
            assert_eq!((parsed.authority.as_str(), parsed.base.as_str()), (authority, base), "{target}");
            assert_eq!(parsed.is_encrypted(), target.starts_with("https"), "{target}");
        }
        let wrong = ["", "https://", "http://", "localhost", "http://a b:1", "ftp://a:1", "http://a:1/x y", "+80"];
        for target in wrong {
            assert!(Target::parse(target).is_err(), "{target:?}");
        }
        let error = Target::parse("x y").unwrap_err();
        assert_eq!(error.to_string(), "target x y: expected http://HOST:PORT or https://HOST:PORT");
        let parsed = Target::parse("https://[fe80::1%eth0]:8443/a/v1").unwrap();
        assert_eq!((parsed.host(), parsed.to_string().as_str()), ("fe80::1", "https://[fe80::1%eth0]:8443/a"));
        assert_eq!(Target::parse("https://host").unwrap().host(), "host");
    }
}
