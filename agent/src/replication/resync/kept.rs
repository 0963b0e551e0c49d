//! What an old side had and the new one hasn't: kept before it is overwritten, listed, shown and deleted by people.
//!
//! A set is a folder: `set.json` says what it is, `data` is a sparse file of the volume's size with each kept chunk at
//! its own place, `chunks` lists these chunks as little-endian numbers of eight bytes. Laid over the volume as it was
//! when the sides parted, it is the old side's volume.
//!
//! Nothing here deletes by itself: a full quota stops the resync and says so.

use super::CHUNK;
use crate::replication::record::replace;
use quorum::id::{Epoch, Generation, GroupName, HostName};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where data comes from that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The group.
    pub group: GroupName,
    /// The volume.
    pub volume: String,
    /// The host on which it was written.
    pub host: HostName,
    /// The generation of the data before it was overwritten.
    pub generation: Generation,
    /// Under which epoch it was overwritten.
    pub replaced_under: Epoch,
    /// The volume's size.
    pub volume_bytes: u64,
}

/// One kept set, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSet {
    /// Its name; also its folder's.
    pub id: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// Bytes in it.
    pub bytes: u64,
    /// Unit of its chunks.
    pub chunk_bytes: u64,
    /// Seconds since 1970 when it was begun, by this host's wall clock: for people only.
    pub begun_unix_s: u64,
    /// Its folder.
    pub path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct SetFile {
    version: u32,
    begun_unix_s: u64,
    origin: Origin,
}

const VERSION: u32 = 1;

/// All kept sets of this host.
#[derive(Clone, Debug)]
pub struct KeptStore {
    root: PathBuf,
}

/// A set that is being written.
#[derive(Debug)]
pub struct KeptWriter {
    store: KeptStore,
    origin: Origin,
    id: String,
    data: File,
    chunks: File,
    bytes: u64,
    /// What other sets of the volume hold already.
    others_bytes: u64,
}

impl KeptStore {
    /// The sets below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// All sets, by name.
    ///
    /// # Errors
    /// What can't be read.
    pub fn list(&self) -> Result<Vec<KeptSet>, String> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(told("read", &self.root, &error)),
        };
        let mut sets = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| told("read", &self.root, &error))?;
            if let Some(set) = entry.file_name().to_str().and_then(|id| self.show(id).transpose()) {
                sets.push(set?);
            }
        }
        sets.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(sets)
    }

    /// One set; `None` if there is no such.
    ///
    /// # Errors
    /// What can't be read.
    pub fn show(&self, id: &str) -> Result<Option<KeptSet>, String> {
        if !is_id(id) {
            return Ok(None);
        }
        let path = self.root.join(id);
        let text = match fs::read(path.join("set.json")) {
            Ok(text) => text,
            // Without its description a set is one whose making or deletion was interrupted.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(told("read", &path, &error)),
        };
        let (begun_unix_s, origin) = described(&text).map_err(|why| format!("read {}: {why}", path.display()))?;
        let listed = fs::metadata(path.join("chunks")).map_err(|error| told("read", &path, &error))?.len() / 8;
        let bytes = listed * CHUNK as u64;
        Ok(Some(KeptSet { id: id.to_owned(), origin, bytes, chunk_bytes: CHUNK as u64, begun_unix_s, path }))
    }

    /// Deletes a set. Returns whether there was one.
    ///
    /// # Errors
    /// What can't be deleted.
    pub fn delete(&self, id: &str) -> Result<bool, String> {
        let Some(set) = self.show(id)? else { return Ok(false) };
        fs::remove_dir_all(&set.path).map_err(|error| told("delete", &set.path, &error))?;
        Ok(true)
    }

    /// Begins a set. Its description is on disk when this returns.
    ///
    /// # Errors
    /// What can't be written.
    pub fn begin(&self, origin: Origin) -> Result<KeptWriter, String> {
        let others = self
            .list()?
            .into_iter()
            .filter(|set| (&set.origin.group, &set.origin.volume) == (&origin.group, &origin.volume));
        let others_bytes = others.map(|set| set.bytes).sum();
        fs::create_dir_all(&self.root).map_err(|error| told("make", &self.root, &error))?;
        let (id, folder) = self.fresh(&origin)?;
        let open = |name: &str| {
            let path = folder.join(name);
            let made = OpenOptions::new().write(true).create_new(true).open(&path);
            made.map_err(|error| told("make", &path, &error))
        };
        let (data, chunks) = (open("data")?, open("chunks")?);
        data.set_len(origin.volume_bytes).map_err(|error| told("size", &folder, &error))?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let file = SetFile { version: VERSION, begun_unix_s: now.as_secs(), origin: origin.clone() };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| error.to_string())?;
        replace(&folder.join("set.json"), &text).map_err(|error| told("write", &folder, &error))?;
        // The folder's own name has to last as well.
        let synced = File::open(&self.root).and_then(|root| root.sync_all());
        synced.map_err(|error| told("write", &self.root, &error))?;
        Ok(KeptWriter { store: self.clone(), origin, id, data, chunks, bytes: 0, others_bytes })
    }

    fn fresh(&self, origin: &Origin) -> Result<(String, PathBuf), String> {
        for number in 1..10_000 {
            let id = format!("{}.{}.e{}.{number}", origin.group, origin.volume, origin.replaced_under.count());
            let folder = self.root.join(&id);
            match fs::create_dir(&folder) {
                Ok(()) => return Ok((id, folder)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(told("make", &folder, &error)),
            }
        }
        Err(format!("too many kept sets of {}.{}: antipode kept delete", origin.group, origin.volume))
    }
}

impl KeptWriter {
    /// Adds a chunk; on disk after [`KeptWriter::force`].
    ///
    /// # Errors
    /// A full quota, or what can't be written.
    pub fn keep(&mut self, chunk: u64, bytes: &[u8], quota: u64) -> Result<(), String> {
        let after = self.others_bytes + self.bytes + bytes.len() as u64;
        if after > quota {
            return Err(format!(
                "keeping what only {} has of {}.{} needs more than {quota} bytes: antipode kept list, antipode kept delete, \
                 or a larger kept_bytes_max",
                self.origin.host, self.origin.group, self.origin.volume
            ));
        }
        let failed = |error| told("write", &self.store.root.join(&self.id), &error);
        self.data.write_all_at(bytes, chunk * CHUNK as u64).map_err(failed)?;
        self.chunks.write_all(&chunk.to_le_bytes()).map_err(|error| told("write", &self.store.root, &error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Forces everything added so far to disk.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn force(&self) -> Result<(), String> {
        let forced = self.data.sync_data().and_then(|()| self.chunks.sync_data());
        forced.map_err(|error| told("write", &self.store.root.join(&self.id), &error))
    }

    /// The set is complete: its name and size.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn finish(self) -> Result<(String, u64), String> {
        self.force()?;
        Ok((self.id, self.bytes))
    }
}

/// What a set's description says: when it was begun, and of what it is.
pub(super) fn described(text: &[u8]) -> Result<(u64, Origin), String> {
    let SetFile { version, begun_unix_s, origin } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if version == VERSION { Ok((begun_unix_s, origin)) } else { Err(format!("form {version}, known is {VERSION}")) }
}

/// A name as [`KeptStore::begin`] makes them: never a path.
fn is_id(id: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !id.is_empty() && id.len() <= 200 && !id.starts_with('.') && id.chars().all(fits)
}

fn told(doing: &str, path: &Path, error: &std::io::Error) -> String {
    format!("{doing} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            group: "erp".parse().unwrap(),
            volume: "root".into(),
            host: "tk-1".parse().unwrap(),
            generation: Generation(1),
            replaced_under: Epoch(2),
            volume_bytes: 4 * CHUNK as u64,
        }
    }

    #[test]
    fn what_is_kept_can_be_listed_read_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = KeptStore::new(folder.path().join("kept"));
        assert_eq!(store.list().unwrap(), Vec::new());
        let mut writer = store.begin(origin()).unwrap();
        writer.keep(2, &[7; CHUNK], u64::MAX).unwrap();
        let (id, bytes) = writer.finish().unwrap();
        assert_eq!(bytes, CHUNK as u64);
        let set = store.show(&id).unwrap().unwrap();
        assert_eq!((set.bytes, &set.origin), (CHUNK as u64, &origin()));
        let data = fs::read(set.path.join("data")).unwrap();
        assert!(data[..2 * CHUNK].iter().all(|byte| *byte == 0) && data[2 * CHUNK..3 * CHUNK] == [7; CHUNK]);
        assert_eq!(fs::read(set.path.join("chunks")).unwrap(), 2_u64.to_le_bytes());
        assert!(store.delete(&id).unwrap());
        assert!(!store.delete(&id).unwrap());
        assert_eq!(store.list().unwrap(), Vec::new());
    }

    #[test]
    fn a_full_quota_counts_every_set_of_the_volume_and_deletes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = KeptStore::new(folder.path().join("kept"));
        let quota = 2 * CHUNK as u64;
        let mut first = store.begin(origin()).unwrap();
        first.keep(0, &[1; CHUNK], quota).unwrap();
        first.finish().unwrap();
        let mut second = store.begin(origin()).unwrap();
        second.keep(0, &[1; CHUNK], quota).unwrap();
        assert!(second.keep(1, &[1; CHUNK], quota).unwrap_err().contains("antipode kept delete"));
        assert_eq!(store.list().unwrap().len(), 2);
    }

    #[test]
    fn no_path_passes_for_the_name_of_a_set() {
        let folder = tempfile::tempdir().unwrap();
        let store = KeptStore::new(folder.path().join("kept"));
        for id in ["..", "../x", "a/b", "", ".hidden"] {
            assert_eq!(store.show(id).unwrap(), None, "{id:?}");
            assert!(!store.delete(id).unwrap(), "{id:?}");
        }
    }
}
