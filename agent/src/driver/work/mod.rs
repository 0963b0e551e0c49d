//! Performs the engine's work on the groups of this host: the workload, its copy of the data, its addresses.
//!
//! One task for each piece of work; a piece that is overtaken is dropped, which never undoes what it began. What a
//! driver finds out becomes a [`Report`], and doubt never becomes "absent" or "done".
//!
//! Not here: whether anything may run (`engine`, `runner`), what the kinds do (`workload`, `replication`, `network`).

mod build;
mod data;
mod kinds;
mod perform;
mod watch;

pub use build::Site;
pub use kinds::{adapter_problems, kind_problems};

use crate::driver::runtime::Incoming;
use crate::driver::transport::BiStream;
use crate::engine::{Report, Sight, Work, WorkId};
use crate::replication::resync;
use build::Built;
use quorum::id::{GroupName, HostEpoch, HostName};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// A piece of work as ordered.
#[derive(Clone, Debug)]
pub struct Order {
    /// Comes back with the report.
    pub id: WorkId,
    /// The group.
    pub group: GroupName,
    /// The admission under which this host acts, if it has one.
    pub host_epoch: Option<HostEpoch>,
    /// What to do.
    pub work: Work,
}

/// Everything that works on groups.
pub struct Workers {
    site: Arc<Site>,
    inbox: mpsc::Sender<Incoming>,
    running: BTreeMap<GroupName, AbortHandle>,
    watches: BTreeMap<GroupName, AbortHandle>,
    /// Where they were made: what works on groups may keep a thread.
    runtime: tokio::runtime::Handle,
}

impl Workers {
    /// Workers that know no spec yet: whatever they are told, they report that. To be called within the tokio runtime
    /// that they are to work in.
    pub fn new(site: Site, inbox: mpsc::Sender<Incoming>) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self { site: Arc::new(site), inbox, running: BTreeMap::new(), watches: BTreeMap::new(), runtime }
    }

    /// The spec in force changed.
    pub fn spec(&mut self, spec: Arc<crate::config::ClusterSpec>) {
        self.site = Arc::new(Site { spec: Some(spec), ..(*self.site).clone() });
    }

    /// Begins a piece of work; its report comes into the inbox.
    pub fn start(&mut self, order: Order) {
        let (site, inbox) = (Arc::clone(&self.site), self.inbox.clone());
        let group = order.group.clone();
        if matches!(order.work, Work::Kill | Work::Stop { .. } | Work::ReleaseWrites { .. }) {
            self.unwatch(&group);
        }
        if matches!(order.work, Work::Start { .. } | Work::Mirror { .. } | Work::Probe { .. }) {
            self.watch(&order);
        }
        let task = self.runtime.spawn(async move {
            let id = order.id;
            let report = match Built::make(&site, &order) {
                Ok(built) => perform::perform(&built, &order.work).await,
                Err(because) => Report::Failed { because },
            };
            let _gone = inbox.send(Incoming::Work(id, report)).await;
        });
        self.running.insert(group, task.abort_handle());
    }

    /// What is under way for the group is overtaken.
    pub fn overtaken(&mut self, group: &GroupName) {
        if let Some(task) = self.running.remove(group) {
            task.abort();
        }
    }

    /// Watches a running workload and its mirror until it is stopped.
    fn watch(&mut self, order: &Order) {
        self.unwatch(&order.group);
        let (site, inbox, order) = (Arc::clone(&self.site), self.inbox.clone(), order.clone());
        let group = order.group.clone();
        let task = self.runtime.spawn(async move {
            if let Ok(built) = Built::make(&site, &order) {
                watch::watch(&built, watch::Life::at(&order.work), &inbox).await;
            }
        });
        self.watches.insert(group, task.abort_handle());
    }

    fn unwatch(&mut self, group: &GroupName) {
        if let Some(task) = self.watches.remove(group) {
            task.abort();
        }
    }

    /// A peer opened a stream for bulk data: a source that wants to bring a copy here up to date.
    pub fn serve_stream(&self, from: &HostName, kind: u8, mut stream: BiStream) {
        if kind != resync::STREAM_KIND {
            tracing::warn!(%from, kind, "a stream that nobody here serves was closed");
            return;
        }
        let (site, inbox, from) = (Arc::clone(&self.site), self.inbox.clone(), from.clone());
        self.runtime.spawn(async move {
            let asked = std::sync::Mutex::new(None);
            let find = |begin: &resync::Begin| {
                *asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(begin.group.clone());
                site.serving(begin)
            };
            let served = resync::serve(&mut stream, &from, find).await;
            let group = asked.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            match (served, group) {
                (Ok(resync::Served { replaced_bytes, kept }), Some(group)) => {
                    tracing::info!(%group, %from, replaced_bytes, ?kept, "a copy here was compared");
                    if let Some((id, bytes)) = kept {
                        let _gone = inbox.send(Incoming::Seen(group, Sight::Kept { id, bytes })).await;
                    }
                }
                (Ok(_), None) => {}
                (Err(because), group) => tracing::warn!(?group, %from, %because, "a comparison ended early"),
            }
        });
    }
}
