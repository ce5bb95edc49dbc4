//! Client of one server: sends requests over kept connections, within deadlines. Knows no OpenAI types, only JSON.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::Answer;
use super::pool::{Connection, Pool};
use super::stream::EventStream;
use super::target::{Scheme, Target};
use super::tls::{Tls, Trust};
use crate::{Error, Result};

const BODY_BYTES_MAX: usize = 64 << 20;

/// Deadlines of one request.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For a connection, with its TLS handshake.
    pub connect: Duration,
    /// For the answer's status, for the rest of a plain answer, and for each next part of a stream.
    pub silence: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { connect: Duration::from_secs(5), silence: Duration::from_secs(600) }
    }
}

/// Client of one server; clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    target: Target,
    tls: Option<Tls>,
    authorization: Option<HeaderValue>,
    deadlines: Deadlines,
    pool: Arc<Pool>,
}

impl Client {
    /// Makes a client of `target` (see [`Target::parse`]) that trusts the authorities of the system; connects to nothing.
    pub fn new(target: &str) -> Result<Client> {
        Client::trusting(target, &Trust::System)
    }

    /// Makes a client that trusts others. Nobody is asked for certificates if the target is `http://`.
    pub fn trusting(target: &str, trust: &Trust) -> Result<Client> {
        let target = Target::parse(target)?;
        let tls = match target.scheme {
            Scheme::Http => None,
            Scheme::Https => Some(Tls::new(target.host(), trust)?),
        };
        Ok(Client { target, tls, authorization: None, deadlines: Deadlines::default(), pool: Arc::default() })
    }

    /// Sends `Authorization: Bearer key` with every request.
    pub fn with_api_key(mut self, key: &str) -> Result<Client> {
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| Error::ApiKey)?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// Uses other deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Client {
        self.deadlines = deadlines;
        self
    }

    /// Address of the server.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends `GET path`; every status is an answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    /// Sends `POST path` with any body, labelled as JSON; every status is an answer.
    pub async fn post_bytes(&self, path: &str, body: Bytes) -> Result<Answer> {
        self.exchange(Method::POST, path, body).await
    }

    /// Sends `POST path` with a JSON body; a status other than 2xx is an error with the server's message.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.post_bytes(path, body.to_string().into()).await?.accepted(path)?.json(path)
    }

    /// Sends `POST path` with a JSON body; the answer is an event stream.
    pub async fn stream(&self, path: &str, body: Bytes) -> Result<EventStream> {
        let (response, connection) = self.send(Method::POST, path, body).await?;
        if response.status().is_success() {
            return Ok(EventStream::new(self.clone(), path, response.into_body(), connection));
        }
        Err(self.collect(path, response, connection).await?.refusal(path))
    }

    /// Names of the models that the server lists, with the longest context of each if it says so.
    pub async fn models(&self) -> Result<Vec<(String, Option<u32>)>> {
        let path = "/v1/models";
        let listed = self.get(path).await?.accepted(path)?.json(path)?;
        let models = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = models.iter().filter_map(|model| {
            let context_max = model["max_model_len"].as_u64().and_then(|tokens| u32::try_from(tokens).ok());
            Some((model["id"].as_str()?.to_owned(), context_max))
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() { Err(Error::NoModel(self.target.to_string())) } else { Ok(named) }
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    pub(super) fn put_back(&self, connection: Connection) {
        self.pool.put_back(connection);
    }

    pub(super) fn broken(&self, path: &str, source: hyper::Error) -> Error {
        let (path, authority) = (path.to_owned(), self.target.authority.clone());
        if source.is_parse() {
            Error::NoHttp { path, authority, source }
        } else {
            Error::Broken { path, authority, source }
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Answer> {
        let (response, connection) = self.send(method, path, body).await?;
        self.collect(path, response, connection).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(Response<Incoming>, Connection)> {
        let mut request = self.request(method, path, body)?;
        // Each turn uses up one kept connection, and a new one ends the loop.
        loop {
            let kept = self.pool.take();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect(path).await?,
            };
            let after = self.deadlines.silence;
            let answer = timeout(after, connection.try_send_request(request)).await;
            match answer.map_err(|_| Error::Stalled { path: path.to_owned(), after })? {
                Ok(response) => return Ok((response, connection)),
                // The server closed an idle connection before the request left: the next one takes it.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(self.broken(path, error.into_error())),
                },
            }
        }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.base))
            .header(HOST, &self.target.authority)
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::new(body)).map_err(|source| Error::Request { path: path.to_owned(), source })
    }

    async fn connect(&self, path: &str) -> Result<Connection> {
        let (authority, after) = (&self.target.authority, self.deadlines.connect);
        let connected = timeout(after, self.open(path)).await;
        connected.map_err(|_| Error::ConnectTimeout { authority: authority.clone(), after })?
    }

    async fn open(&self, path: &str) -> Result<Connection> {
        let authority = &self.target.authority;
        let unreachable = |source| Error::Unreachable { authority: authority.clone(), source };
        let stream = TcpStream::connect(authority).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let connection = match &self.tls {
            Some(tls) => converse(tls.over(stream, authority).await?).await,
            None => converse(stream).await,
        };
        connection.map_err(|error| self.broken(path, error))
    }

    async fn collect(&self, path: &str, response: Response<Incoming>, connection: Connection) -> Result<Answer> {
        let after = self.deadlines.silence;
        let (head, body) = response.into_parts();
        let limited = Limited::new(body, BODY_BYTES_MAX);
        let collected = timeout(after, limited.collect()).await;
        match collected.map_err(|_| Error::Stalled { path: path.to_owned(), after })? {
            Ok(collected) => {
                self.put_back(connection);
                Ok(Answer { status: head.status, headers: head.headers, body: collected.to_bytes() })
            }
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(error) => self.broken(path, *error),
                Err(_) => Error::TooLarge { path: path.to_owned(), bytes_max: BODY_BYTES_MAX },
            }),
        }
    }
}

async fn converse<S>(stream: S) -> hyper::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // The connection ends with its sender; its errors reach the caller through the response.
    tokio::spawn(connection);
    Ok(sender)
}
