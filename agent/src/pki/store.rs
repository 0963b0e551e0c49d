//! Files of the authority and of identities: private, replaced atomically, locked while they change.
//!
//! Invariants: every file has mode 0600 from its first byte on, every directory made here 0700; a reader sees the old
//! content or the new one, never a mixture; [`write_new`] never replaces anything, not even in a race.
//!
//! Not here: what the files mean.

use super::PkiError;
use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest file read here: certificates, keys and lists are a few kilobytes; a list of 100,000 revoked ones is 4 MB.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Makes `directory` (and its parents) with mode 0700. One that exists keeps its mode.
///
/// # Errors
/// [`PkiError::File`]; a part of the parents may have been made.
pub fn make_directory(directory: &Path) -> Result<(), PkiError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| PkiError::File {
        doing: "make directory",
        path: directory.to_owned(),
        source,
    })
}

/// Writes a file that must not exist yet.
///
/// # Errors
/// [`PkiError::Exists`] if something has that name; [`PkiError::File`] otherwise.
pub fn write_new(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write(path, content, RenameFlags::NOREPLACE)
}

/// Writes a file, replacing what was there in one step.
///
/// # Errors
/// [`PkiError::File`]; the old content is still there.
pub fn write_over(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write(path, content, RenameFlags::empty())
}

fn write(path: &Path, content: &[u8], flags: RenameFlags) -> Result<(), PkiError> {
    let temporary = temporary_beside(path);
    let written = write_and_sync(&temporary, content)
        .and_then(|()| rename(&temporary, path, flags))
        .and_then(|()| sync_directory(parent(path)));
    if written.is_err() {
        // Nothing more can be done about a temporary file that can't be removed; its name is never reused.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn write_and_sync(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { doing: "write", path: path.to_owned(), source };
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(|e| failed(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), PkiError> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, from, cwd, to, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(PkiError::Exists(to.to_owned())),
        Err(e) => Err(PkiError::File { doing: "put in place", path: to.to_owned(), source: e.into() }),
    }
}

/// Replaces directory `to` by directory `from` in one step (or puts `from` there if there is none), then removes the
/// replaced one.
///
/// # Errors
/// [`PkiError::File`]; `to` is as it was, or already replaced with the old one still beside it under `from`'s name.
pub fn replace_directory(from: &Path, to: &Path) -> Result<(), PkiError> {
    match rename(from, to, RenameFlags::NOREPLACE) {
        Err(PkiError::Exists(_)) => {
            rename(from, to, RenameFlags::EXCHANGE)?;
            std::fs::remove_dir_all(from).map_err(|source| PkiError::File {
                doing: "remove",
                path: from.to_owned(),
                source,
            })?;
        }
        other => other?,
    }
    sync_directory(parent(to))
}

/// A name in the same directory (so that a rename stays within one file system) that nothing else uses.
pub fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().map_or_else(|| "file".into(), |n| n.to_string_lossy());
    parent(path).join(format!(".{name}.{}.{count}", std::process::id()))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if p != Path::new("") => p,
        _ => Path::new("."),
    }
}

fn sync_directory(path: &Path) -> Result<(), PkiError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(|source| PkiError::File {
        doing: "sync",
        path: path.to_owned(),
        source,
    })
}

/// Reads a whole file of at most [`FILE_BYTES_MAX`] bytes.
///
/// # Errors
/// [`PkiError::File`], also for a larger file.
pub fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    let failed = |source| PkiError::File { doing: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(content)
}

/// Reads a whole file as text.
///
/// # Errors
/// [`PkiError::File`], or [`PkiError::Damaged`] if it isn't UTF-8.
pub fn read_text(path: &Path) -> Result<String, PkiError> {
    String::from_utf8(read(path)?).map_err(|e| damaged(path, e))
}

/// The error for a file whose content can't be understood.
pub fn damaged(path: &Path, because: impl ToString) -> PkiError {
    PkiError::Damaged { path: path.to_owned(), because: because.to_string() }
}

/// The right to change a directory; held until dropped. Waits for whoever holds it.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "the lock lives as long as the descriptor is open")] File);

impl DirectoryLock {
    /// Takes the lock of `directory`, waiting for its holder to finish.
    ///
    /// # Errors
    /// [`PkiError::File`] if the lock file can't be made or locked.
    pub fn take(directory: &Path) -> Result<Self, PkiError> {
        let path = directory.join("lock");
        let failed = |e: rustix::io::Errno| PkiError::File { doing: "lock", path: path.clone(), source: e.into() };
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        rustix::fs::flock(&fd, FlockOperation::LockExclusive).map_err(failed)?;
        Ok(Self(File::from(fd)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn files_are_private_and_directories_too() {
        let base = tempfile::tempdir().expect("temporary directory");
        let directory = base.path().join("a/b");
        make_directory(&directory).expect("make");
        write_new(&directory.join("key"), b"secret").expect("write");
        write_over(&directory.join("list"), b"1").expect("write");
        assert_eq!((mode(&directory), mode(&directory.join("key"))), (0o700, 0o600));
        assert_eq!(mode(&directory.join("list")), 0o600);
    }

    #[test]
    fn what_must_be_new_is_never_overwritten_and_leaves_no_litter() {
        let base = tempfile::tempdir().expect("temporary directory");
        let path = base.path().join("root.key");
        write_new(&path, b"first").expect("write");
        assert!(matches!(write_new(&path, b"second"), Err(PkiError::Exists(_))));
        assert_eq!(read(&path).expect("read"), b"first");
        assert_eq!(std::fs::read_dir(base.path()).expect("list").count(), 1);
    }

    #[test]
    fn a_directory_is_replaced_as_a_whole() {
        let base = tempfile::tempdir().expect("temporary directory");
        let target = base.path().join("tls");
        for (round, file) in ["old", "new"].iter().enumerate() {
            let fresh = base.path().join(format!("fresh{round}"));
            make_directory(&fresh).expect("make");
            write_new(&fresh.join(file), b"x").expect("write");
            replace_directory(&fresh, &target).expect("replace");
        }
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(std::fs::read_dir(base.path()).expect("list").count(), 1);
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let base = tempfile::tempdir().expect("temporary directory");
        let path = base.path().join("huge");
        File::create(&path).and_then(|f| f.set_len(FILE_BYTES_MAX + 1)).expect("sparse file");
        assert!(matches!(read(&path), Err(PkiError::File { .. })));
    }
}
