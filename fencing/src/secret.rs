//! Secrets: configured by reference, read when needed, masked wherever text leaves this crate.
//!
//! Contract: a secret's value is never an argument of a program, never in `Debug` or `Display`, never in the journal,
//! never in an error. What a device or a program says is passed through a [`Mask`] before it goes anywhere, because
//! devices repeat passwords in their messages. A value is read anew for every call, so that rotating it needs no restart.

use crate::trouble::Trouble;
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Largest secret, in bytes: more is a wrong file.
const SECRET_BYTES_MAX: u64 = 4096;

/// What stands where a secret stood.
pub const MASKED: &str = "****";

/// Where a secret is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// In a file that others can't read.
    File(PathBuf),
    /// In an environment variable of the agent.
    Env(String),
    /// Among the credentials that systemd hands to the unit (`LoadCredential=`).
    Credential(String),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
        }
    }
}

impl SecretRef {
    /// Reads the secret. A trailing line end isn't part of it.
    ///
    /// # Errors
    /// [`Trouble::Unusable`] with what is missing; never with any part of the secret.
    pub fn read(&self) -> Result<Secret, Trouble> {
        let unusable = |because: String| Trouble::Unusable { because: format!("the secret in {self} {because}") };
        let bytes = match self {
            Self::File(path) => read_private(path).map_err(&unusable)?,
            Self::Env(name) => std::env::var_os(name)
                .map(std::os::unix::ffi::OsStringExt::into_vec)
                .ok_or_else(|| unusable("isn't set".into()))?,
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| unusable("isn't there: CREDENTIALS_DIRECTORY isn't set".into()))?;
                read_private(&Path::new(&folder).join(name)).map_err(&unusable)?
            }
        };
        let mut text = String::from_utf8(bytes).map_err(|_| unusable("isn't text".into()))?;
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        if text.is_empty() {
            return Err(unusable("is empty".into()));
        }
        if text.contains(['\n', '\r', '\0']) {
            return Err(unusable("has more than one line".into()));
        }
        Ok(Secret(text))
    }
}

fn read_private(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("can't be opened: {error}"))?;
    let mode = file.metadata().map_err(|error| format!("can't be examined: {error}"))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(format!("may be read or written by everybody (mode {:o}): chmod o= it", mode & 0o777));
    }
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("can't be read: {error}"))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("has more than {SECRET_BYTES_MAX} bytes: is it the right file?"));
    }
    Ok(bytes)
}

/// A secret's value. Can't be printed; overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASKED)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Keeps the compiler from leaving out a write that nobody reads.
        std::hint::black_box(&bytes);
    }
}

/// Hides secrets in text that comes from outside.
#[derive(Clone, Debug, Default)]
pub struct Mask(Vec<Secret>);

impl Mask {
    /// A mask for these secrets.
    pub fn of(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Self(secrets.into_iter().collect())
    }

    /// One more.
    pub fn add(&mut self, secret: Secret) {
        self.0.push(secret);
    }

    /// `text` without the secrets, without control characters, and of bounded length: fit for a log line.
    pub fn hide(&self, text: &str) -> String {
        const SHOWN_MAX: usize = 400;
        let one_line = self.masked(text).split_whitespace().collect::<Vec<_>>().join(" ");
        // What is left out may have stood within a secret.
        let plain: String = one_line.chars().filter(|c| !c.is_control()).collect();
        let masked = self.masked(&plain);
        let mut shown: String = masked.chars().take(SHOWN_MAX).collect();
        if shown.len() < masked.len() {
            shown.push('…');
        }
        shown
    }

    fn masked(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), MASKED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, SecretRef) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (folder, SecretRef::File(path))
    }

    #[test]
    fn a_secret_with_control_characters_in_it_is_masked_as_well() {
        let mask = Mask::of([Secret::new("hunter2")]);
        for said in ["login hunter2 refused", "login hu\u{f}\u{f}nter2 refused", "login hunter\u{1b}2 refused"] {
            assert_eq!(mask.hide(said), format!("login {MASKED} refused"));
        }
        assert!(mask.hide(&"x".repeat(500)).ends_with('…'));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), MASKED);
        assert_eq!(Mask::of([secret]).hide("login hunter2\n failed"), "login **** failed");
    }

    #[test]
    fn a_trailing_line_end_is_not_part_of_the_secret() {
        let (_folder, reference) = file("hunter2\n", 0o600);
        assert_eq!(reference.read().unwrap().expose(), "hunter2");
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_refused_without_being_told() {
        let (_folder, reference) = file("hunter2\n", 0o644);
        let trouble = reference.read().unwrap_err().to_string();
        assert!(trouble.contains("chmod") && !trouble.contains("hunter2"), "{trouble}");
    }

    #[test]
    fn a_missing_empty_or_many_lined_secret_is_refused() {
        for text in ["", "\n", "a\nb\n"] {
            let (_folder, reference) = file(text, 0o600);
            assert!(reference.read().is_err(), "{text:?} was taken");
        }
        assert!(SecretRef::Env("ANTIPODE_NO_SUCH_VARIABLE".into()).read().is_err());
    }
}
