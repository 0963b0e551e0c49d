//! One question to the engine's loop and its answer, with a limit.

use super::{Asked, BackupDocument, DoneDocument, ErrorDocument, Exit, LiveDocument, TimingDocument};
use crate::engine::{
    API_VERSION, Answer, ChainDocument, CheckDocument, FenceDecision, FenceView, PlansDocument, Request, SpecDocument,
    StatusDocument,
};
use quorum::ledger::Person;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Longer than the engine's own patience with a proposal, so that the engine's answer is the one that is told.
const PATIENCE: Duration = Duration::from_secs(15);

/// An answer that is not an error.
pub(super) enum Told {
    /// It took effect, or would.
    Done(DoneDocument),
    /// The status.
    Status(Box<StatusDocument>),
    /// What an order about fencing would come to.
    FenceDecision(Box<FenceDecision>),
    /// Fencing by the log.
    Fencing(Box<FenceView>),
    /// The time spans.
    Timing(Box<TimingDocument>),
    /// The plans.
    Plans(Box<PlansDocument>),
    /// The spec in force.
    Spec(Box<SpecDocument>),
    /// The end of the audit chain.
    Chain(Box<ChainDocument>),
    /// A spec was only checked.
    Checked(Box<CheckDocument>),
    /// The ledger.
    Backup(BackupDocument),
    Live(Box<LiveDocument>),
}

/// Asks and waits.
pub(super) async fn ask(to: &mpsc::Sender<Asked>, by: Person, request: Request) -> Result<Told, ErrorDocument> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        to.send(Asked { by, request, answer }).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => told(answer?),
        Err(_elapsed) => Err(busy()),
    }
}

fn told(answer: Answer) -> Result<Told, ErrorDocument> {
    match answer {
        Answer::Done { index, detail } => Ok(Told::Done(DoneDocument::new(index, detail))),
        Answer::Status(status) => Ok(Told::Status(status)),
        Answer::FenceDecision(decision) => Ok(Told::FenceDecision(decision)),
        Answer::Fencing(view) => Ok(Told::Fencing(view)),
        Answer::Waits { index, because, next } => {
            let text = format!("recorded as {index}: {because}");
            Err(ErrorDocument::new(Exit::Approval, "awaits-approval", text, next))
        }
        Answer::Backup { index, era, bytes } => Ok(Told::Backup(BackupDocument::new(index, u64::from(era.0), &bytes))),
        Answer::Live { cluster, index, ledger, heard, unfenceable } => {
            let ledger = BackupDocument::new(index, 0, &ledger);
            let document = LiveDocument {
                api_version: API_VERSION,
                cluster,
                seen_by: String::new(),
                index: index.0,
                heard,
                unfenceable,
                ledger,
            };
            Ok(Told::Live(Box::new(document)))
        }
        Answer::Timing(timing) => Ok(Told::Timing(Box::new(TimingDocument::of(&timing)))),
        Answer::Plans(plans) => Ok(Told::Plans(plans)),
        Answer::Spec(spec) => Ok(Told::Spec(spec)),
        Answer::Chain(chain) => Ok(Told::Chain(chain)),
        Answer::Checked(checked) => Ok(Told::Checked(checked)),
        Answer::Refused { code, because, workload, next } => {
            Err(ErrorDocument::new(Exit::Refused, code, because, next).meaning(workload))
        }
        Answer::Undecided { because } => {
            Err(ErrorDocument::new(Exit::Unreachable, "undecided", because, "antipode status")
                .meaning("it may still take effect; what runs goes on"))
        }
    }
}

fn ending() -> ErrorDocument {
    ErrorDocument::new(Exit::Unreachable, "agent-ending", "the agent is ending", "ask again when it is back")
        .meaning("protected groups go on while this host's lease lasts")
}

fn busy() -> ErrorDocument {
    let text = format!("the agent did not answer within {} s", PATIENCE.as_secs());
    ErrorDocument::new(Exit::TimedOut, "agent-busy", text, "antipode status").meaning("it may still take effect")
}
