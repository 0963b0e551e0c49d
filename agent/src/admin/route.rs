//! Which request of the API is which request to the engine.
//!
//! ```text
//! GET  /v1/status                StatusDocument
//! GET  /v1/timing                TimingDocument
//! GET  /v1/explain/KIND/NAME     Explanation     KIND: site, host, group, plan
//! POST /v1/apply                 ApplyAsked -> DoneDocument
//! POST /v1/move                  MoveAsked  -> DoneDocument
//! POST /v1/order                 OrderAsked -> DoneDocument
//! POST /v1/transfer/HOST         DoneDocument
//! GET  /v1/events?after=BYTE     EventsDocument
//! …    /v1/fence…                see `fence`
//! ```
//! Errors are ErrorDocuments.

use super::ask::{Told, ask};
use super::{ApplyAsked, Asked, ErrorDocument, Exit, MoveAsked, OrderAsked, Subject, explain, fence};
use crate::engine::{Move, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use quorum::id::VoterId;
use quorum::ledger::Person;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use tokio::sync::mpsc;

/// The largest body: a cluster spec of 100,000 groups stays below it.
const BODY_BYTES_MAX: usize = 32 << 20;

/// What a request is answered from.
#[derive(Clone)]
pub(super) struct Served {
    /// The way to the engine's loop.
    pub requests: mpsc::Sender<Asked>,
    /// Where the event journal is.
    pub data_dir: PathBuf,
    /// This host's fence devices.
    pub fence: fencing::Handle,
}

/// Answers one request.
pub(super) async fn answer(state: &Served, by: Person, request: hyper::Request<Incoming>) -> Response<Full<Bytes>> {
    match route(state, by, request).await {
        Ok(body) => respond(StatusCode::OK, body),
        Err(error) => respond(status_of(error.exit()), json(&error)),
    }
}

async fn route(state: &Served, by: Person, request: hyper::Request<Incoming>) -> Result<Bytes, ErrorDocument> {
    let to = &state.requests;
    let (head, body) = request.into_parts();
    let segments: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
    let is = |method: &Method, path: &[&str]| head.method == *method && segments == path;
    if is(&Method::GET, &["v1", "status"]) {
        return told(ask(to, by, Request::Status).await?);
    }
    if is(&Method::GET, &["v1", "timing"]) {
        return told(ask(to, by, Request::Timing).await?);
    }
    if is(&Method::POST, &["v1", "apply"]) {
        let ApplyAsked { source, dry_run, reason } = read(body).await?;
        return told(ask(to, by, Request::Apply { source, dry_run, reason }).await?);
    }
    if is(&Method::POST, &["v1", "move"]) {
        let asked: MoveAsked = read(body).await?;
        return told(ask(to, by, Request::Move(moved(asked)?)).await?);
    }
    if is(&Method::POST, &["v1", "order"]) {
        let OrderAsked { order, reason } = read(body).await?;
        return told(ask(to, by, Request::Order { order, reason }).await?);
    }
    if is(&Method::GET, &["v1", "events"]) {
        return events(state, head.uri.query()).await;
    }
    if let (&Method::POST, ["v1", "transfer", host]) = (&head.method, segments.as_slice()) {
        return transfer(to, by, host).await;
    }
    if let (&Method::GET, ["v1", "explain", kind, name]) = (&head.method, segments.as_slice()) {
        return explained(to, by, (kind, name)).await;
    }
    if segments.get(1) == Some(&"fence")
        && let Some(answer) = fence::route(state, &by, (&head.method, &segments, head.uri.query()), body).await
    {
        return answer;
    }
    let text = format!("{} {} is not part of the admin API", head.method, head.uri.path());
    Err(ErrorDocument::new(
        Exit::Usage,
        "unknown-request",
        text,
        "antipode help; agent and command line differ in version",
    ))
}

fn moved(asked: MoveAsked) -> Result<Move, ErrorDocument> {
    let Some(kind) = asked.plan_kind() else {
        let text = format!("{:?} is no kind of move", asked.kind);
        return Err(ErrorDocument::new(
            Exit::Usage,
            "unknown-move",
            text,
            "failover, switchover, failback or reprotect",
        ));
    };
    Ok(Move { kind, group: asked.group, to: asked.to, reason: asked.reason, dry_run: asked.dry_run })
}

async fn explained(to: &mpsc::Sender<Asked>, by: Person, (kind, name): (&str, &str)) -> Result<Bytes, ErrorDocument> {
    let Some(subject) = Subject::parse(kind) else {
        let text = format!("{kind:?} can't be explained");
        return Err(ErrorDocument::new(Exit::Usage, "unknown-subject", text, "explain site, host, group or plan"));
    };
    let Told::Status(status) = ask(to, by, Request::Status).await? else {
        return Err(defect());
    };
    let Some(explanation) = explain(&status, subject, name) else {
        let text = format!("the cluster knows no {kind} {name:?} here");
        return Err(ErrorDocument::new(Exit::Error, "unknown-name", text, "antipode status lists all names"));
    };
    Ok(json(&explanation))
}

/// The engine knows voters by number; people know hosts.
async fn transfer(to: &mpsc::Sender<Asked>, by: Person, host: &str) -> Result<Bytes, ErrorDocument> {
    let Told::Status(status) = ask(to, by.clone(), Request::Status).await? else { return Err(defect()) };
    let Some(voter) = status.quorum.members.iter().find(|voter| voter.host == host) else {
        let text = format!("{host} doesn't vote");
        return Err(ErrorDocument::new(Exit::Refused, "not-a-voter", text, "antipode quorum status lists the voters"));
    };
    told(ask(to, by, Request::Transfer(VoterId(voter.id))).await?)
}

async fn events(state: &Served, query: Option<&str>) -> Result<Bytes, ErrorDocument> {
    let after = query.and_then(|query| query.strip_prefix("after=")).map_or(Ok(0), str::parse);
    let Ok(after) = after else {
        let text = "`after` is no number of bytes";
        return Err(ErrorDocument::new(
            Exit::Usage,
            "malformed-request",
            text,
            "leave it out to read from the beginning",
        ));
    };
    let data_dir = state.data_dir.clone();
    let read = tokio::task::spawn_blocking(move || super::events::read(&data_dir, after)).await;
    read.map_err(|_panicked| defect())?.map(|document| json(&document))
}

pub(super) fn defect() -> ErrorDocument {
    ErrorDocument::new(Exit::Error, "defect", "the agent answered another question", "report this")
}

pub(super) fn told(told: Told) -> Result<Bytes, ErrorDocument> {
    Ok(match told {
        Told::Done(done) => json(&done),
        Told::Status(status) => json(&status),
        Told::Timing(timing) => json(&timing),
        Told::FenceDecision(decision) => json(&decision),
        Told::Fencing(view) => json(&view),
    })
}

pub(super) async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, ErrorDocument> {
    let wrong =
        |text: String| ErrorDocument::new(Exit::Usage, "malformed-request", text, "see the API's documentation");
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| wrong(error.to_string()))
}

/// Documents have string keys and finite numbers only, so they can always be written.
pub(super) fn json<T: Serialize>(document: &T) -> Bytes {
    let mut bytes = serde_json::to_vec(document).expect("a document is plain data");
    bytes.push(b'\n');
    bytes.into()
}

fn status_of(exit: Exit) -> StatusCode {
    match exit {
        Exit::Done => StatusCode::OK,
        Exit::Error => StatusCode::NOT_FOUND,
        Exit::Usage => StatusCode::BAD_REQUEST,
        Exit::Refused => StatusCode::CONFLICT,
        Exit::Approval => StatusCode::ACCEPTED,
        Exit::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
        Exit::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

fn respond(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}
