//! Mixed releases: what this agent understands, and when the cluster goes on to it (protocol §2).
//!
//! ```text
//!   each agent   what I understand isn't what the log says of me ──► Supports
//!   the leader   every voter and every admitted host understands N ──► ClusterVersion(N)
//!                from its entry on, what only N understands may be proposed, sent and stored
//!   any agent    the version in force is beyond what I understand ──► it ends, and names the remedy
//! ```
//! Until then a newer release writes what the older one reads, and any host can go back to it. A cluster that was never
//! upgraded has none of these entries.
//!
//! Not here: whether the version may be raised (the ledger's `apply`), the versions of envelopes (`quorum::codec`).

use super::core::Engine;
use super::effect::Effect;
use quorum::ledger::{Command, Decision, Person, PersonKey};
use quorum::mutants;

impl Engine {
    /// Whether the version in force is beyond this release. It must not act on a log that it can't understand: the agent
    /// ends before it does anything that follows from it.
    pub(super) fn ends_outdated(&mut self) -> bool {
        let (version, understood) = (self.ledger.version(), self.understood);
        if version <= understood {
            return false;
        }
        // What was found out in this step is told, nothing else of it is done.
        self.effects.retain(|effect| matches!(effect, Effect::Event(_)));
        self.halt(format!(
            "the cluster is at version {version} and this release understands {understood} at most: this agent does nothing \
             here; what ran on this host ends with its lease and starts elsewhere. Install the release that the others run"
        ));
        true
    }

    /// Says in the log what this agent understands, when the log says something else. Also after a step back.
    pub(super) fn announce_version(&mut self) {
        let (host, version) = (self.me.host.clone(), self.understood);
        let is_known = self.ledger.spec().hosts.contains_key(&host);
        if is_known && self.ledger.understood_by(&host) != version {
            self.propose(Command::Supports { host, version });
        }
    }

    /// The leader goes on to what everybody understands.
    pub(super) fn raise_version(&mut self) {
        let all = self.ledger.understood_by_all();
        let version = if mutants::on("engine.raises_early") { self.understood } else { all.min(self.understood) };
        if version <= self.ledger.version() {
            return;
        }
        let by = Person { name: format!("the leader {}", self.me.host), key: PersonKey::Local(0) };
        let reason = format!("every voter and every admitted host understands version {version}");
        let by = Decision { by, reason, shown: String::new() };
        self.propose_paced("version", Command::ClusterVersion { version, by });
    }

    /// Plays another release, which understands up to `version`. For the simulator.
    pub(crate) fn play_release(&mut self, version: u32) {
        self.understood = version;
    }
}
