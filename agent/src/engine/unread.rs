//! What this host was given of the log and can't read: it stays where it is, and a person is told.

use super::core::Engine;
use super::status::AttentionLine;
use crate::event::Event;
use quorum::id::{Era, HostName, LogIndex};

/// What couldn't be read last.
#[derive(Debug)]
pub(super) struct Unread {
    from: HostName,
    because: String,
    /// How far this host had applied the log then: once it is further, nothing of this matters any more.
    applied: LogIndex,
    /// The era of what it had applied; one that began since may go on from an entry before that.
    era: Era,
}

impl Engine {
    /// Something of the log was dropped that came from `from`, or lay in this host's own store.
    pub(super) fn could_not_read(&mut self, from: HostName, because: String) {
        let (applied, era) = (self.ledger.applied(), self.ledger.era());
        self.unread = Some(Unread { from: from.clone(), because: because.clone(), applied, era });
        self.event(Event::Dropped { from, because });
    }

    pub(super) fn unread_attention(&self) -> Option<AttentionLine> {
        let Unread { from, because, applied, era } = self.unread.as_ref()?;
        if self.ledger.applied() > *applied || self.ledger.era() > *era {
            return None;
        }
        let me = &self.me.host;
        // What lies in its own store came from the leader once.
        let other =
            Some(from).filter(|from| *from != me).cloned().or_else(|| self.leader().filter(|leader| leader != me));
        let whose = other.map_or_else(|| "the other voters".to_owned(), |other| other.to_string());
        let then = match self.voting {
            Some(_) => format!("antipode quorum remove {me}, then add it anew"),
            None => "antipode bundle, for a report".to_owned(),
        };
        Some(AttentionLine {
            code: "log-unread",
            text: format!(
                "{me} has the log until entry {applied} only, and does nothing of what was decided since: {because}"
            ),
            next: format!("install on {me} the release of {whose}; if it has that already: {then}"),
        })
    }
}
