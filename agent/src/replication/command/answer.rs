//! What an adapter's answers may say, and what is made of them. Pure: bytes in, a state or a doubt out.
//!
//! A missing number, a word that isn't known, a mirror of another order: each is a doubt. The one thing taken without
//! further proof is that there is *no* mirror, which only ever makes a copy count for less.

use crate::replication::{MirrorState, Mode};
use quorum::id::{Epoch, HostName};
use quorum::mutants;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// What a mirror was told to do; an adapter hands it back as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) epoch: Epoch,
    pub(super) mode: Mode,
    pub(super) to: HostName,
    pub(super) target: Target,
}

/// Where the standby's receiving end listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

/// One answer. Keys that aren't known are for later versions.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) result: String,
    pub(super) because: String,
    /// What an adapter can serve.
    pub(super) modes: Vec<Mode>,
    order: Option<Order>,
    done_bytes: Option<u64>,
    total_bytes: Option<u64>,
    pending_bytes: Option<u64>,
    behind_ms: Option<u64>,
    since_ms: Option<u64>,
    was_whole: Option<bool>,
}

/// What the adapter printed.
pub(super) fn understand(stdout: &[u8]) -> Result<Answer, String> {
    let answer: Answer = serde_json::from_slice(stdout).map_err(|error| format!("the adapter's answer: {error}"))?;
    if answer.result.is_empty() { Err("the adapter's answer has no result".into()) } else { Ok(answer) }
}

/// Whether the bytes are an answer from which a mirror's state can be told: what a fuzzer calls.
pub(crate) fn is_answer(stdout: &[u8]) -> bool {
    let Ok(answer) = understand(stdout) else { return false };
    let _ = answer.order_in_force();
    let epoch = answer.order.as_ref().map(|order| order.epoch);
    let mode = answer.order.as_ref().map_or(Mode::Async, |order| order.mode);
    answer.mirror_state((epoch, mode), Duration::from_secs(1)).is_ok()
}

impl Answer {
    /// The result and what is said about it.
    pub(super) fn as_told(&self) -> (&str, &str) {
        (&self.result, &self.because)
    }

    /// The order of the mirror that is there, if one is.
    ///
    /// # Errors
    /// Why it can't be told.
    pub(super) fn order_in_force(&self) -> Result<Option<Order>, String> {
        match (self.result.as_str(), &self.order) {
            ("none" | "ended", _) => Ok(None),
            ("copying" | "synced" | "away", Some(order)) => Ok(Some(order.clone())),
            ("copying" | "synced" | "away", None) => {
                Err(format!("{} under an order that it doesn't name", self.result))
            }
            (other, _) => Err(format!("{other}: {}", self.because)),
        }
    }

    /// The state of the mirror of this epoch and mode, from an answer that took so long.
    ///
    /// # Errors
    /// Why it can't be told.
    pub(super) fn mirror_state(
        &self,
        (epoch, mode): (Option<Epoch>, Mode),
        took: Duration,
    ) -> Result<MirrorState, String> {
        if let Some(order) = self.order_in_force()?
            && (Some(order.epoch), order.mode) != (epoch, mode)
            && !mutants::on("data.another_mirror_speaks")
        {
            return Err(format!("a mirror of {order:?}, and not of epoch {epoch:?} in mode {mode:?}"));
        }
        let number = |key: &str, value: Option<u64>| value.ok_or_else(|| format!("{} without {key}", self.result));
        let span = |value: u64| Duration::from_millis(value);
        match self.result.as_str() {
            "none" => Ok(MirrorState::Detached { because: None }),
            "ended" => {
                let because = if self.because.is_empty() { "it doesn't say why" } else { &self.because };
                Ok(MirrorState::Detached { because: Some(because.to_owned()) })
            }
            "copying" => Ok(MirrorState::Copying {
                done_bytes: number("done_bytes", self.done_bytes)?,
                total_bytes: number("total_bytes", self.total_bytes)?,
            }),
            "synced" => Ok(MirrorState::Synced {
                pending_bytes: number("pending_bytes", self.pending_bytes)?,
                // It was measured somewhere between the question and the answer.
                behind: self.behind_ms.map(|behind| span(behind).saturating_add(took)),
            }),
            "away" => Ok(MirrorState::Away {
                since: span(number("since_ms", self.since_ms)?),
                pending_bytes: self.pending_bytes.unwrap_or_default(),
                was_whole: self.was_whole.ok_or("away without was_whole")?,
            }),
            other => Err(format!("{other}: {}", self.because)),
        }
    }
}
