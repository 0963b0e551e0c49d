//! Which hosts a voter's beat leaves for on schedule, and which as a reply to their own.
//!
//! A host without a vote is told the same as everybody else, but needn't be told at the same moment: a beat that leaves
//! together with the answer to a lease request, in the packet that acknowledges the host's own beat, costs next to nothing.
//! And a thousand beats don't leave in one step. Whoever is silent gets its beats on schedule: its own may be lost on the
//! way here while it still hears.
//!
//! Of two beats to the same host the second leaves Δ after the first while the host speaks, and at most 2·Δ when one of
//! its own is lost: as if one of these were.

use quorum::id::HostName;
use quorum::mutants;
use std::collections::BTreeSet;

/// Who has what since the last scheduled beat.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    served: BTreeSet<HostName>,
    spoke: BTreeSet<HostName>,
    spoke_before: BTreeSet<HostName>,
}

impl Replies {
    /// The next scheduled beat leaves.
    pub fn begin(&mut self) {
        self.served.clear();
        self.spoke_before = std::mem::take(&mut self.spoke);
    }

    /// Whether it leaves for `host` now; if not, as a reply.
    pub fn is_scheduled(&mut self, host: &HostName) -> bool {
        let is_silent = !self.spoke_before.contains(host) && !mutants::on("heartbeat.only_replies");
        if is_silent {
            self.served.insert(host.clone());
        }
        is_silent
    }

    /// `host` beat: whether it is owed the last scheduled beat.
    pub fn is_owed(&mut self, host: &HostName) -> bool {
        self.spoke.insert(host.clone());
        self.served.insert(host.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostName {
        HostName::new("tk-1").expect("a name")
    }

    #[test]
    fn a_host_that_speaks_is_answered_once_and_one_that_fell_silent_is_told_on_schedule() {
        let (mut replies, host) = (Replies::default(), host());
        replies.begin();
        assert!(replies.is_scheduled(&host), "it was never heard");
        assert!(!replies.is_owed(&host), "it has this beat");
        replies.begin();
        assert!(!replies.is_scheduled(&host), "it speaks");
        assert!(replies.is_owed(&host));
        assert!(!replies.is_owed(&host), "a second time within one beat");
        replies.begin();
        assert!(!replies.is_scheduled(&host), "its next beat is awaited");
        replies.begin();
        assert!(replies.is_scheduled(&host), "and didn't come");
        replies.begin();
        assert!(replies.is_scheduled(&host), "it is still silent");
    }
}
