//! What a person should look at: what happened, what it means, and the next command.
//!
//! Not here: lines about one subject that live with it (hosts in `readmit`, pins in `pins`, devices in `fence_view`).

use super::document::{AttentionLine, VersionLine};
use crate::engine::core::Engine;
use crate::engine::groups;
use quorum::ledger::TicketState;

impl Engine {
    pub(super) fn attention(&self) -> Vec<AttentionLine> {
        let mut lines = Vec::new();
        if let Some(brake) = self.ledger.brake() {
            lines.push(AttentionLine {
                code: "brake",
                text: format!("the brake is set: {}; nothing is activated automatically", brake.because),
                next: "antipode brake release".into(),
            });
        }
        let quorum = self.quorum_line();
        if quorum.leader.is_none() && quorum.reachable < quorum::roster::majority(quorum.voters) {
            lines.push(AttentionLine {
                code: "no-majority",
                text: format!(
                    "{} of {} voters are heard, too few to decide anything: no group is started or moved, and those whose \
                     lease ends are stopped. It ends when another voter is heard; recover only if they are gone for ever",
                    quorum.reachable, quorum.voters
                ),
                next: "antipode quorum recover".into(),
            });
        } else if quorum.leader.is_none() {
            lines.push(AttentionLine {
                code: "no-leader",
                text: format!(
                    "no leader; {} of {} voters are heard. Nothing can be decided",
                    quorum.reachable, quorum.voters
                ),
                next: "antipode quorum status".into(),
            });
        } else if quorum.can_lose == 0 && quorum.voters > 1 {
            lines.push(AttentionLine {
                code: "no-spare-voter",
                text: "the quorum can lose no more voter: automatic failover is suspended if it does".into(),
                next: "antipode quorum status".into(),
            });
        }
        lines.extend(self.version_attention());
        lines.extend(self.unread_attention());
        lines.extend(self.host_attention());
        lines.extend(self.fence_attention());
        lines.extend(self.group_attention());
        lines
    }

    fn version_attention(&self) -> Option<AttentionLine> {
        let VersionLine { cluster, behind, .. } = self.version_line();
        let first = behind.first()?;
        let text =
            format!("releases are mixed: the cluster stays at version {cluster} until {} follow", behind.join(", "));
        Some(AttentionLine { code: "version-behind", text, next: format!("install the newer release on {first}") })
    }

    fn group_attention(&self) -> Vec<AttentionLine> {
        let mut lines = Vec::new();
        for group in self.ledger.spec().groups.keys() {
            let Some(state) = self.ledger.group(group) else { continue };
            let Some(ticket) = &state.ticket else { continue };
            lines.extend(state.diverged.iter().map(|(copy, found)| AttentionLine {
                code: "data-diverged",
                text: format!("{group}: {copy}'s copy doesn't fit the log ({found:?}): two sides may have written"),
                next: format!("look at both copies; bring {} back, its copy goes on", ticket.of.host),
            }));
            if let Some(line) = self.pin_attention(group, state) {
                lines.push(line);
                continue;
            }
            if self.ledger.is_ended(&ticket.of) {
                let gaps = self.ledger.covering_evidence(group);
                let gap = gaps.iter().find_map(|(of, proof)| proof.as_ref().err().map(|gap| format!("{of}: {gap}")));
                let held = self.leading.as_ref().and_then(|leading| leading.gate_told.get(group));
                if let (None, Some(because)) = (&gap, held) {
                    lines.push(AttentionLine {
                        code: "data-held",
                        text: format!("{group} is down and held: {because}"),
                        next: format!("bring {} back, or antipode failover {group} --accept-loss", ticket.of.host),
                    });
                    continue;
                }
                let (because, next) = match (gap, self.activation_held(group)) {
                    (None, Some((because, next))) => (because, next),
                    (gap, _) => {
                        (gap.unwrap_or_else(|| "it is taken over".into()), format!("antipode explain group {group}"))
                    }
                };
                let text = format!("{group} has lost its owner {}: {because}", ticket.of);
                lines.push(AttentionLine { code: "group-down", text, next });
            } else if ticket.state == TicketState::Granted {
                let text = format!("{group} was granted to {} and isn't up there yet", ticket.of);
                lines.push(AttentionLine {
                    code: "group-starting",
                    text,
                    next: format!("antipode explain group {group}"),
                });
            } else if state.in_sync.len() < 2
                && !state.copies.keys().any(|host| groups::is_following(state, host))
                && !self.ledger.spec().groups[group].volumes.is_empty()
            {
                lines.push(AttentionLine {
                    code: "unprotected",
                    text: format!("{group} has no second copy in sync: losing {} would lose data", ticket.of.host),
                    next: format!("antipode reprotect {group}"),
                });
            }
        }
        lines
    }
}
