//! The command line's end of the admin API: one request, one answer, with a limit.

use super::Failure;
use super::options::Reach;
use crate::admin::{ErrorDocument, Exit};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// Longer than the agent's own limit, so that its answer is the one that is told.
const PATIENCE: Duration = Duration::from_secs(20);
/// Reading hundreds of devices, some of which hang until their limit.
const SLOW: Duration = Duration::from_secs(600);

/// Asks for a document.
pub(super) fn get(reach: &Reach, path: &str) -> Result<Value, Failure> {
    block_on(request(reach, Method::GET, path, Bytes::new()))
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
    let stream = UnixStream::connect(&reach.socket).await.map_err(|error| unreachable(&reach.socket, &error))?;
    let broken = |error: hyper::Error| unreachable(&reach.socket, &error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "antipode")
        .body(Full::new(body))
        .map_err(|error| Failure::new(Exit::Usage, "malformed-request", error.to_string(), "antipode help"))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    // 202 says in an error document for whom it waits.
    let is_success = response.status() == hyper::StatusCode::OK;
    let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
    let strange = |error: serde_json::Error| {
        let text = format!("the agent's answer can't be read: {error}");
        Failure::new(Exit::Error, "strange-answer", text, "antipode version; agent and command line may differ")
    };
    if is_success {
        return serde_json::from_slice(&bytes).map_err(strange);
    }
    Err(Failure(serde_json::from_slice(&bytes).map_err(strange)?))
}

fn unreachable(socket: &Path, error: &dyn std::error::Error) -> Failure {
    let text = format!("no agent answers at {}: {error}", socket.display());
    let next = "systemctl status antipode-agent; or name its socket with --socket";
    Failure(ErrorDocument::new(Exit::Unreachable, "agent-unreachable", text, next).meaning("unknown from here"))
}
