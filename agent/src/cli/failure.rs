//! Why a verb ends with another status than 0, for people and as JSON.

use crate::admin::{ErrorDocument, Exit};
use std::fmt;

/// A verb that did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure(pub ErrorDocument);

impl Failure {
    /// Something that went wrong on this side; nothing changed for any workload.
    pub fn new(exit: Exit, code: &str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self(ErrorDocument::new(exit, code, text, next))
    }

    /// A part of this process that "failed to" do something, with its causes.
    pub fn ended(code: &str, error: &dyn std::error::Error, next: &str) -> Self {
        Self::new(Exit::Error, code, format!("failed to {}", Chain(error)), next)
    }

    /// How to end.
    pub fn exit(&self) -> Exit {
        self.0.exit()
    }

    /// The document, on one line.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string(&self.0).expect("an error document is plain data");
        json + "\n"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = &self.0.error;
        if self.exit() == Exit::Refused {
            f.write_str("refused: ")?;
        }
        write!(f, "{}", error.text)?;
        for (label, text) in [("meaning", &error.workload), ("next", &error.next)] {
            if !text.is_empty() {
                write!(f, "\n  {label}: {text}")?;
            }
        }
        Ok(())
    }
}

/// An error and its causes on one line.
struct Chain<'e>(&'e dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(deeper) = cause {
            write!(f, ": {deeper}")?;
            cause = deeper.source();
        }
        Ok(())
    }
}
