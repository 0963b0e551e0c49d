//! The revisions of the cluster spec that this agent has seen, each as people wrote it.
//!
//! The ledger keeps the revision in force only; every agent writes each one into a folder of its own when it is
//! applied ([`keep`]), so that it can be shown, compared and applied again.

use super::{ErrorDocument, Exit};
use crate::engine::{API_VERSION, SpecDocument};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The folder's name in the data directory.
const FOLDER: &str = "revisions";

/// `config history -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionsDocument {
    /// Version of this document.
    pub api_version: u32,
    /// Which host has seen them.
    pub seen_by: String,
    /// Oldest first; those before this host joined are missing.
    pub revisions: Vec<RevisionLine>,
}

/// A revision without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionLine {
    /// Which.
    pub revision: u64,
    /// The entry that set it.
    pub at_index: u64,
    /// Who applied it.
    pub by: Option<String>,
    /// This host's wall clock when it saw it.
    pub seen_wall_ms: u64,
}

/// `config show --revision -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionDocument {
    /// Version of this document.
    pub api_version: u32,
    /// Which host has seen it.
    pub seen_by: String,
    /// The rest of what is known.
    #[serde(flatten)]
    pub line: RevisionLine,
    /// What people wrote.
    pub source: String,
}

/// Keeps the spec in force. Says so to the log if it can't: the cluster goes on without.
pub fn keep(data_dir: &Path, spec: &SpecDocument, seen_wall_ms: u64) {
    let folder = data_dir.join(FOLDER);
    let line = RevisionLine { revision: spec.revision, at_index: spec.at_index, by: spec.by.clone(), seen_wall_ms };
    let (api_version, seen_by, source) = (API_VERSION, spec.seen.seen_by.clone(), spec.source.clone());
    let document = RevisionDocument { api_version, seen_by, line, source };
    let path = file(&folder, spec.revision);
    if path.exists() {
        return;
    }
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| crate::replication::record::replace(&path, &serde_json::to_vec(&document)?));
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "a revision of the spec could not be kept");
    }
}

fn file(folder: &Path, revision: u64) -> PathBuf {
    folder.join(format!("{revision:08}.json"))
}

fn failed(path: &Path, error: &std::io::Error) -> ErrorDocument {
    let text = format!("read {}: {error}", path.display());
    ErrorDocument::new(Exit::Error, "revisions-unreadable", text, "look at the agent's data directory")
}

fn load(path: &Path) -> Result<RevisionDocument, ErrorDocument> {
    let bytes = std::fs::read(path).map_err(|error| failed(path, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(path, &error.into()))
}

/// All of them, without their texts.
pub(super) fn list(data_dir: &Path) -> Result<RevisionsDocument, ErrorDocument> {
    let folder = data_dir.join(FOLDER);
    let mut files: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(&folder, &error)),
    };
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let documents: Vec<RevisionDocument> = files.iter().map(|path| load(path)).collect::<Result<_, _>>()?;
    let seen_by = documents.first().map(|document| document.seen_by.clone()).unwrap_or_default();
    let revisions = documents.into_iter().map(|document| document.line).collect();
    Ok(RevisionsDocument { api_version: API_VERSION, seen_by, revisions })
}

/// One of them.
pub(super) fn one(data_dir: &Path, number: &str) -> Result<RevisionDocument, ErrorDocument> {
    let unknown = || {
        let text = format!("this agent has seen no revision {number:?}");
        ErrorDocument::new(Exit::Error, "unknown-revision", text, "antipode config history lists those it has seen")
    };
    let revision: u64 = number.parse().map_err(|_| unknown())?;
    let path = file(&data_dir.join(FOLDER), revision);
    if path.exists() { load(&path) } else { Err(unknown()) }
}
