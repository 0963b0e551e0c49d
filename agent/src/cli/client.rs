//! The command line's end of the admin API: one request, one answer, with a limit.

use super::Failure;
use super::options::Reach;
use crate::admin::{self, ErrorDocument, Exit};
use crate::pki::files::IdentityFiles;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// Longer than the agent's own limit, so that its answer is the one that is told.
const PATIENCE: Duration = Duration::from_secs(20);
/// Reading hundreds of devices, some of which hang until their limit.
const SLOW: Duration = Duration::from_secs(600);

/// Asks for a document.
pub(super) fn get(reach: &Reach, path: &str) -> Result<Value, Failure> {
    block_on(request(reach, Method::GET, path, Bytes::new()))
}

/// A document as what it is. A newer agent may say more.
pub(super) fn parse<T: DeserializeOwned>(document: &Value) -> Result<T, Failure> {
    T::deserialize(document).map_err(|error| {
        let text = format!("the agent's answer can't be read: {error}");
        Failure::new(Exit::Error, "strange-answer", text, "antipode version; agent and command line may differ")
    })
}

/// Sends a document and returns the answer.
pub(super) fn post<T: Serialize>(reach: &Reach, path: &str, body: &T) -> Result<Value, Failure> {
    let body = serde_json::to_vec(body).expect("a request is plain data");
    block_on(request(reach, Method::POST, path, body.into()))
}

/// As `post`, for what takes a machine longer than a person's patience.
pub(super) fn post_slow<T: Serialize>(reach: &Reach, path: &str, body: &T) -> Result<Value, Failure> {
    let body = serde_json::to_vec(body).expect("a request is plain data");
    within(SLOW, request(reach, Method::POST, path, body.into()))
}

fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    within(PATIENCE, future)
}

fn within<T>(limit: Duration, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Error, "no-runtime", error.to_string(), ""))?;
    runtime.block_on(async {
        tokio::time::timeout(limit, future).await.unwrap_or_else(|_elapsed| {
            let text = format!("the agent did not answer within {} s", limit.as_secs());
            Err(Failure(
                ErrorDocument::new(Exit::TimedOut, "agent-busy", text, "antipode status")
                    .meaning("it may still take effect"),
            ))
        })
    })
}

async fn request(reach: &Reach, method: Method, path: &str, body: Bytes) -> Result<Value, Failure> {
    if let Some(host) = &reach.agent {
        let stream = admin::connect(host, &identity(reach)?).await.map_err(|error| refused(host, &error))?;
        return exchange(stream, (method, path, body)).await.map_err(|trouble| trouble.told(host));
    }
    let socket = reach.socket.display().to_string();
    let stream = UnixStream::connect(&reach.socket).await.map_err(|error| unreachable(&socket, &error))?;
    exchange(stream, (method, path, body)).await.map_err(|trouble| trouble.told(&socket))
}

/// The certificate with which another machine is asked.
fn identity(reach: &Reach) -> Result<IdentityFiles, Failure> {
    let Some(dir) = &reach.identity else {
        let text = "asking another machine takes your certificate";
        let next = "--identity DIR, or ANTIPODE_IDENTITY; antipode pki issue --person makes one";
        return Err(Failure::new(Exit::Usage, "identity-missing", text, next));
    };
    Ok(IdentityFiles::in_directory(dir))
}

/// What can happen to a request on a connection that is up.
enum Trouble {
    Broken(hyper::Error),
    Told(Box<Failure>),
}

impl From<hyper::Error> for Trouble {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

impl Trouble {
    fn told(self, at: &str) -> Failure {
        match self {
            Self::Broken(error) => unreachable(at, &error),
            Self::Told(failure) => *failure,
        }
    }
}

async fn exchange<S>(stream: S, (method, path, body): (Method, &str, Bytes)) -> Result<Value, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "antipode")
        .body(Full::new(body))
        .map_err(|error| Failure::new(Exit::Usage, "malformed-request", error.to_string(), "antipode help"))
        .map_err(|failure| Trouble::Told(Box::new(failure)))?;
    let response = sender.send_request(request).await?;
    // 202 says in an error document for whom it waits.
    let is_success = response.status() == hyper::StatusCode::OK;
    let bytes = response.into_body().collect().await?.to_bytes();
    let strange = |error: serde_json::Error| {
        let text = format!("the agent's answer can't be read: {error}");
        let next = "antipode version; agent and command line may differ";
        Trouble::Told(Box::new(Failure::new(Exit::Error, "strange-answer", text, next)))
    };
    if is_success {
        return serde_json::from_slice(&bytes).map_err(strange);
    }
    Err(Trouble::Told(Box::new(Failure(serde_json::from_slice(&bytes).map_err(strange)?))))
}

fn unreachable(at: &str, error: &dyn std::error::Error) -> Failure {
    let text = format!("no agent answers at {at}: {error}");
    let next = "systemctl status antipode-agent; or name its socket with --socket";
    Failure(ErrorDocument::new(Exit::Unreachable, "agent-unreachable", text, next).meaning("unknown from here"))
}

/// The other machine, or the certificates here, stood in the way of a connection.
fn refused(host: &str, error: &std::io::Error) -> Failure {
    let text = format!("no connection to the agent of {host}: {error}");
    let next = "antipode pki show of your certificate; is [admin] listen set there, and the certificate in force?";
    Failure(ErrorDocument::new(Exit::Unreachable, "agent-unreachable", text, next).meaning("unknown from here"))
}
