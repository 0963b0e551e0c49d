//! Which request of the API is which request to the engine.
//!
//! ```text
//! GET  /v1/status                StatusDocument
//! GET  /v1/timing                TimingDocument
//! GET  /v1/plans                 PlansDocument   open plans and the last closed ones
//! GET  /v1/live                  LiveDocument    the ledger and who is heard: what `what-if` plays
//! GET  /v1/spec                  SpecDocument    the spec in force
//! GET  /v1/revisions[/REVISION]  RevisionsDocument, RevisionDocument   those that this agent has seen
//! GET  /v1/backup                BackupDocument
//! GET  /v1/explain/KIND/NAME     Explanation     KIND: site, host, group, plan
//! GET  /v1/events?after=BYTE     EventsDocument
//! GET  /v1/fence                 FenceDocument   what could be proven; more: [`fence`]
//! GET  /v1/audit                 AuditDocument   the records, and whether they are whole
//! POST /v1/apply                 ApplyAsked -> DoneDocument, or CheckDocument if only checked
//! POST /v1/move                  MoveAsked  -> DoneDocument
//! POST /v1/order                 OrderAsked -> DoneDocument
//! POST /v1/members               MembersAsked -> DoneDocument
//! POST /v1/transfer/HOST         DoneDocument
//! GET  /v1/kept[/ID]             KeptDocument    what was kept of an old side on this host
//! POST /v1/kept/ID/delete        KeptDocument
//! ```
//! Errors are ErrorDocuments. Who may ask what: [`super::roles`].

use super::ask::{Told, ask};
use super::roles::{Call, Caller, fence_needs, find, order_needs};
use super::{
    ApplyAsked, Asked, ErrorDocument, Exit, FenceAsked, MembersAsked, MoveAsked, OrderAsked, Subject, explain, fence,
};
use crate::engine::{Move, Request};
use crate::pki::Role;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use quorum::id::VoterId;
use quorum::ledger::PlanKind;
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
    /// This host.
    pub host: String,
}

/// One request on its way to an answer.
struct Question<'a> {
    state: &'a Served,
    caller: Caller,
    stars: Vec<&'a str>,
    query: Option<&'a str>,
    body: Incoming,
}

/// Answers one request.
pub(super) async fn answer(state: &Served, caller: Caller, request: hyper::Request<Incoming>) -> Response<Full<Bytes>> {
    match route(state, caller, request).await {
        Ok(body) => respond(StatusCode::OK, body),
        Err(error) if error.error.code == TOO_WEAK => respond(StatusCode::FORBIDDEN, json(&error)),
        Err(error) => respond(status_of(error.exit()), json(&error)),
    }
}

const TOO_WEAK: &str = "role-too-weak";

/// Whether the caller may; the error says which role could.
fn permit(caller: &Caller, least: Role) -> Result<(), ErrorDocument> {
    if caller.role >= least {
        return Ok(());
    }
    let text = format!("{} is {}; this takes the role {least}", caller.person.name, caller.role);
    Err(ErrorDocument::new(Exit::Refused, TOO_WEAK, text, format!("ask somebody with the role {least}")))
}

async fn route(state: &Served, caller: Caller, request: hyper::Request<Incoming>) -> Result<Bytes, ErrorDocument> {
    let (head, body) = request.into_parts();
    let Some((route, stars)) = find(&head.method, head.uri.path()) else {
        let text = format!("{} {} is not part of the admin API", head.method, head.uri.path());
        let next = "antipode help; agent and command line differ in version";
        return Err(ErrorDocument::new(Exit::Usage, "unknown-request", text, next));
    };
    permit(&caller, route.least)?;
    Question { state, caller, stars, query: head.uri.query(), body }.answer(route.call).await
}

impl Question<'_> {
    // dispatcher: one arm a request.
    async fn answer(self, call: Call) -> Result<Bytes, ErrorDocument> {
        match call {
            Call::Status => self.ask(Request::Status).await,
            Call::Timing => self.ask(Request::Timing).await,
            Call::Plans => self.ask(Request::Plans).await,
            Call::Live => self.ask(Request::Live).await,
            Call::Spec => self.ask(Request::Spec).await,
            Call::Revisions => self.on_disk(super::revisions::list).await,
            Call::Revision => {
                let number = self.stars[0].to_owned();
                self.on_disk(move |dir| super::revisions::one(dir, &number)).await
            }
            Call::Explain => self.explain().await,
            Call::Events => self.events().await,
            Call::Audit => self.audit().await,
            Call::Fence => fence::status(self.state, self.caller.person).await,
            Call::FenceTest => fence::test(self.state, self.body).await,
            Call::FenceOrder => self.fence_order().await,
            Call::FenceHistory => fence::history(self.state, self.query).await,
            Call::Apply => self.apply().await,
            Call::Move => self.start_move().await,
            Call::Order => self.order().await,
            Call::Transfer => self.transfer().await,
            Call::KeptSets => self.on_disk(|dir| super::kept::look(dir, None)).await,
            Call::KeptSet => {
                let id = self.stars[0].to_owned();
                self.on_disk(move |dir| super::kept::look(dir, Some(&id))).await
            }
            Call::KeptDelete => {
                let (id, by) = (self.stars[0].to_owned(), self.caller.person.name.clone());
                self.on_disk(move |dir| super::kept::delete(dir, &id, &by)).await
            }
            Call::Members => self.members().await,
            Call::Backup => self.ask(Request::Backup).await,
        }
    }

    async fn told(&self, request: Request) -> Result<Told, ErrorDocument> {
        ask(&self.state.requests, self.caller.person.clone(), request).await
    }

    /// The document, with who says so where it doesn't say by itself.
    fn told_as(&self, told: Told) -> Result<Bytes, ErrorDocument> {
        signed(&self.state.host, told)
    }

    async fn ask(&self, request: Request) -> Result<Bytes, ErrorDocument> {
        self.told_as(self.told(request).await?)
    }

    /// Works in the agent's folder on a thread that may block.
    async fn on_disk<T, F>(&self, read: F) -> Result<Bytes, ErrorDocument>
    where
        T: Serialize + Send + 'static,
        F: FnOnce(&std::path::Path) -> Result<T, ErrorDocument> + Send + 'static,
    {
        let data_dir = self.state.data_dir.clone();
        let read = tokio::task::spawn_blocking(move || read(&data_dir)).await;
        read.map_err(|_panicked| defect())?.map(|document| json(&document))
    }

    async fn apply(self) -> Result<Bytes, ErrorDocument> {
        let (to, person, host) = (self.state.requests.clone(), self.caller.person.clone(), self.state.host.clone());
        let ApplyAsked { source, dry_run, reason } = read(self.body).await?;
        // What only the kinds know is looked at here; a spec with such a problem is checked and not applied.
        let mut of_kinds = crate::driver::work::kind_problems("the spec", &source);
        of_kinds.extend(crate::driver::work::adapter_problems("the spec", &source).await);
        let only_check = dry_run || !of_kinds.is_empty();
        match ask(&to, person, Request::Apply { source, dry_run: only_check, reason }).await? {
            Told::Checked(mut checked) => {
                checked.problems.extend(of_kinds);
                checked.problems.sort_by_key(|problem| problem.line);
                if checked.problems.is_empty() { Ok(json(&checked)) } else { Err(refused(*checked)) }
            }
            other => signed(&host, other),
        }
    }

    async fn start_move(self) -> Result<Bytes, ErrorDocument> {
        let (to, person, host) = (self.state.requests.clone(), self.caller.person.clone(), self.state.host.clone());
        let asked: MoveAsked = read(self.body).await?;
        signed(&host, ask(&to, person, Request::Move(moved(asked)?)).await?)
    }

    async fn order(self) -> Result<Bytes, ErrorDocument> {
        let (to, caller, host) = (self.state.requests.clone(), self.caller.clone(), self.state.host.clone());
        let OrderAsked { order, reason } = read(self.body).await?;
        permit(&caller, order_needs(&order))?;
        signed(&host, ask(&to, caller.person, Request::Order { order, reason }).await?)
    }

    async fn members(self) -> Result<Bytes, ErrorDocument> {
        let (to, person, host) = (self.state.requests.clone(), self.caller.person.clone(), self.state.host.clone());
        let MembersAsked { order, reason } = read(self.body).await?;
        signed(&host, ask(&to, person, Request::Members { order, reason }).await?)
    }

    async fn fence_order(self) -> Result<Bytes, ErrorDocument> {
        let asked: FenceAsked = read(self.body).await?;
        permit(&self.caller, fence_needs(&asked.act, asked.dry_run))?;
        fence::order(self.state, self.caller.person, asked).await
    }

    async fn explain(&self) -> Result<Bytes, ErrorDocument> {
        let (kind, name) = (self.stars[0], self.stars[1]);
        let Some(subject) = Subject::parse(kind) else {
            let text = format!("{kind:?} can't be explained");
            return Err(ErrorDocument::new(Exit::Usage, "unknown-subject", text, "explain site, host, group or plan"));
        };
        let Told::Status(status) = self.told(Request::Status).await? else { return Err(defect()) };
        let Some(explanation) = explain(&status, subject, name) else {
            let text = format!("the cluster knows no {kind} {name:?} here");
            return Err(ErrorDocument::new(Exit::Error, "unknown-name", text, "antipode status lists all names"));
        };
        Ok(json(&explanation))
    }

    /// The engine knows voters by number; people know hosts.
    async fn transfer(&self) -> Result<Bytes, ErrorDocument> {
        let host = self.stars[0];
        let Told::Status(status) = self.told(Request::Status).await? else { return Err(defect()) };
        let Some(voter) = status.quorum.members.iter().find(|voter| voter.host == host) else {
            let text = format!("{host} doesn't vote");
            let next = "antipode quorum status lists the voters";
            return Err(ErrorDocument::new(Exit::Refused, "not-a-voter", text, next));
        };
        self.ask(Request::Transfer(VoterId(voter.id))).await
    }

    async fn events(&self) -> Result<Bytes, ErrorDocument> {
        let after = self.query.and_then(|query| query.strip_prefix("after=")).map_or(Ok(0), str::parse);
        let Ok(after) = after else {
            let text = "`after` is no number of bytes";
            let next = "leave it out to read from the beginning";
            return Err(ErrorDocument::new(Exit::Usage, "malformed-request", text, next));
        };
        self.on_disk(move |dir| super::events::read(dir, after)).await
    }

    /// The chain's end first: what the file lacks of it is missing, what it has beyond it came later.
    async fn audit(&self) -> Result<Bytes, ErrorDocument> {
        let Told::Chain(chain) = self.told(Request::Chain).await? else { return Err(defect()) };
        self.on_disk(move |dir| super::audit::read(dir, &chain)).await
    }
}

fn moved(asked: MoveAsked) -> Result<Move, ErrorDocument> {
    let Some(kind) = asked.plan_kind() else {
        let text = format!("{:?} is no kind of move", asked.kind);
        let next = "failover, switchover, failback or reprotect";
        return Err(ErrorDocument::new(Exit::Usage, "unknown-move", text, next));
    };
    let MoveAsked { group, to: toward, reason, dry_run, accept_loss, .. } = asked;
    if accept_loss && kind != PlanKind::Failover {
        let text = "only a failover can accept a loss";
        return Err(ErrorDocument::new(Exit::Usage, "malformed-request", text, "leave --accept-loss out"));
    }
    Ok(Move { kind, group, toward, to: None, reason, dry_run, accept_loss })
}

/// A spec that isn't applied, with everything that is wrong with it.
fn refused(checked: crate::engine::CheckDocument) -> ErrorDocument {
    let lines: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
    let mut error =
        ErrorDocument::new(Exit::Refused, "spec-refused", lines.join("\n"), "correct the spec, apply again");
    error.problems = checked.problems.into();
    error
}

pub(super) fn defect() -> ErrorDocument {
    ErrorDocument::new(Exit::Error, "defect", "the agent answered another question", "report this")
}

pub(super) fn signed(host: &str, told: Told) -> Result<Bytes, ErrorDocument> {
    Ok(match told {
        Told::Done(mut done) => {
            done.seen_by = host.to_owned();
            json(&done)
        }
        Told::Status(status) => json(&status),
        Told::Timing(timing) => json(&timing),
        Told::FenceDecision(decision) => json(&decision),
        Told::Fencing(view) => json(&view),
        Told::Plans(plans) => json(&plans),
        Told::Spec(spec) => json(&spec),
        Told::Chain(chain) => json(&chain),
        Told::Checked(checked) => json(&checked),
        Told::Backup(backup) => json(&backup),
        Told::Live(mut live) => {
            live.seen_by = host.to_owned();
            json(&live)
        }
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
