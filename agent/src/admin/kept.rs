//! Kept sets over the admin API: what an old side of a volume on this host had and the new one hasn't.
//!
//! A matter of this host alone: nothing of it is in the log, and no majority is needed to look or to delete.

use super::{ErrorDocument, Exit};
use crate::engine::API_VERSION;
use crate::replication::resync::kept::{KeptSet, KeptStore};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Answer to `GET /v1/kept`, `GET /v1/kept/ID` and `POST /v1/kept/ID/delete`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptDocument {
    /// Version of this document.
    pub api_version: u32,
    /// The sets asked about; those that were deleted, after a deletion.
    pub sets: Vec<KeptSet>,
}

/// All sets, or the one of this name.
///
/// # Errors
/// No such set, or one that can't be read.
pub(super) fn look(data_dir: &Path, id: Option<&str>) -> Result<KeptDocument, ErrorDocument> {
    let store = store(data_dir);
    let sets = match id {
        None => store.list().map_err(|because| unusable(&because))?,
        Some(id) => vec![one(&store, id)?],
    };
    Ok(KeptDocument { api_version: API_VERSION, sets })
}

/// Deletes the set of this name.
///
/// # Errors
/// No such set, or one that can't be deleted.
pub(super) fn delete(data_dir: &Path, id: &str, by: &str) -> Result<KeptDocument, ErrorDocument> {
    let store = store(data_dir);
    let set = one(&store, id)?;
    store.delete(id).map_err(|because| unusable(&because))?;
    tracing::warn!(id, bytes = set.bytes, by, because = "a person said so", "kept data deleted");
    Ok(KeptDocument { api_version: API_VERSION, sets: vec![set] })
}

/// Where the agent of this data directory keeps its sets.
pub fn store(data_dir: &Path) -> KeptStore {
    KeptStore::new(data_dir.join("kept"))
}

fn one(store: &KeptStore, id: &str) -> Result<KeptSet, ErrorDocument> {
    let found = store.show(id).map_err(|because| unusable(&because))?;
    found.ok_or_else(|| {
        let text = format!("nothing is kept here as {id:?}");
        ErrorDocument::new(Exit::Error, "unknown-name", text, "antipode kept list, on the host that was resynced")
    })
}

fn unusable(because: &str) -> ErrorDocument {
    ErrorDocument::new(Exit::Error, "kept-unusable", because, "look at the data directory's disk")
}
