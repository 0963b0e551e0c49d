//! Where a group would go, and whether it could go by itself.

use super::is_following;
use crate::detector::Judgement;
use crate::engine::core::Engine;
use crate::engine::status::PossibleLine;
use crate::heartbeat::Suspicions;
use crate::placement::{Candidate, Choice, Rejection, choose};
use quorum::id::{GroupName, HostName};
use quorum::ledger::{Class, EvidenceKind, GroupSpec, GroupState, Tier};

impl Engine {
    /// Suspect here; or, if it doesn't speak to this agent, to all voters that this agent hears and that trust their ears.
    pub(in crate::engine) fn is_silent(&self, host: &HostName) -> bool {
        if self.detector.expects(host) {
            return matches!(self.detector.judgement(host), Some(Judgement::Suspect { .. }));
        }
        if *host == self.me.host {
            return false;
        }
        let site = self.ledger.site_of(host);
        let says_so =
            |said: &Suspicions| said.hosts.contains(host) || site.is_some_and(|site| said.sites.contains(site));
        let trusted = |voter: &HostName| matches!(self.detector.judgement(voter), Some(Judgement::Trusted));
        let voters = self.voter_hosts().into_values().filter(|voter| voter != host && trusted(voter));
        let mut said = voters
            .filter_map(|voter| Some(&self.heard.get(&voter)?.beat.suspicions))
            .filter(|said| !said.abstains)
            .peekable();
        said.peek().is_some() && said.all(says_so)
    }

    /// Admitted and heard here.
    pub(in crate::engine) fn is_alive(&self, host: &HostName) -> bool {
        self.ledger.admitted(host).is_some() && (*host == self.me.host || !self.is_silent(host))
    }

    /// Where the group would go if its owner were lost now.
    pub(in crate::engine) fn would_go_to(&self, group: &GroupName) -> Option<HostName> {
        let (state, spec) = (self.ledger.group(group)?, self.ledger.group_spec(group)?);
        self.choose_for(state, spec).host
    }

    pub(in crate::engine) fn choose_for(&self, state: &GroupState, spec: &GroupSpec) -> Choice {
        let owner = state.ticket.as_ref().map(|ticket| &ticket.of.host);
        let now = self.now.moment;
        let flapping =
            |host: &HostName| self.leading.as_ref().is_some_and(|leading| leading.damping.is_flapping(now, host));
        let candidates: Vec<Candidate> = spec
            .hosts()
            .map(|host| Candidate {
                host: host.clone(),
                is_alive: self.is_alive(host),
                is_owner: Some(host) == owner,
                in_maintenance: self.ledger.maintenance_of(host).is_some(),
                is_held: self.ledger.hold_of(host).is_some() || flapping(host),
                is_barred: state.pin.is_some(),
                has_data: spec.volumes.is_empty() || state.in_sync.contains(host) || is_following(state, host),
                load: self.ledger.groups_on(host).count(),
            })
            .collect();
        let with_data = choose(&candidates, true);
        if with_data.host.is_some() { with_data } else { choose(&candidates, false) }
    }

    /// What keeps every automatic takeover of a group from being activated now, and the command that ends it: the brake,
    /// or a freeze that holds activation. A person's own order isn't kept by either.
    pub(in crate::engine) fn activation_held(&self, group: &GroupName) -> Option<(String, String)> {
        if let Some(brake) = self.ledger.brake() {
            let because = format!("the brake is set ({}): nothing is activated automatically", brake.because);
            return Some((because, "antipode brake release, once it is clear why so much was lost".into()));
        }
        let (freeze, frozen) = self.ledger.freeze_of_group(group)?;
        frozen.hold_activation.then(|| {
            (
                format!("activation is frozen by an operator ({freeze})"),
                format!("antipode thaw {freeze}, or wait for its end"),
            )
        })
    }

    /// Whether the cluster could fail a group over by itself, told before the disaster.
    pub(in crate::engine) fn automatic_failover(&self, group: &GroupName) -> PossibleLine {
        let no = |because: String| PossibleLine { possible: false, because };
        let Some(spec) = self.ledger.group_spec(group) else { return no("the spec doesn't name it".into()) };
        if spec.tier != Tier::Auto {
            return no(format!("its tier waits for a person ({:?})", spec.tier).to_lowercase());
        }
        let Some(state) = self.ledger.group(group) else { return no("it isn't born yet".into()) };
        let Some(ticket) = &state.ticket else { return no("it has no owner yet".into()) };
        let class = self.ledger.incarnation(&ticket.of).map(|of| of.class);
        let by_lease =
            spec.accept.contains(&EvidenceKind::SelfFenced) && matches!(class, Some(Class::A) | Some(Class::B));
        let accepts_devices = spec.accept.contains(&EvidenceKind::PoweredOff);
        let levels = self.ledger.spec().hosts.get(&ticket.of.host).map(|host| host.fencing.len());
        let has_device = accepts_devices && levels.is_some_and(|levels| levels > 0);
        if !by_lease && !has_device {
            return no(format!(
                "automatic failover is impossible here: {} can't prove itself by its lease, and no fence device of it is accepted",
                ticket.of.host
            ));
        }
        if let Some(brake) = self.ledger.brake() {
            return no(format!("the brake is set ({}); `antipode brake release` ends it", brake.because));
        }
        if let Some((freeze, _)) = self.ledger.freeze_of_group(group) {
            return no(format!("frozen by an operator; `antipode thaw {freeze}` ends it"));
        }
        if self.voter_hosts().len() > 1 && self.quorum_line().can_lose == 0 {
            return no("the quorum can lose no more voter".into());
        }
        let choice = self.choose_for(state, spec);
        match choice.host {
            None => no(format!("no other host could run it now{}", reasons(&choice))),
            Some(host) if is_following(state, &host) && !state.in_sync.contains(&host) => {
                let lag = self.lag_heard(group, state).map(|(lag, since)| lag + since);
                // At least the lease has to run out before it is taken over.
                match lag.map(|lag| lag + self.timing.lease) {
                    Some(loss) if loss <= spec.target_rpo => PossibleLine {
                        possible: true,
                        because: format!("to {host}, losing what was written in the last {loss:?} or so"),
                    },
                    Some(loss) => no(format!("{host} would lose some {loss:?}, the target is {:?}", spec.target_rpo)),
                    None => no(format!("nobody here knows how far {host} is behind")),
                }
            }
            Some(host) if !spec.volumes.is_empty() && !state.in_sync.contains(&host) => {
                no(format!("{host} has no copy in sync"))
            }
            Some(host) => {
                let by = if by_lease { "the owner's lease" } else { "a fence device" };
                PossibleLine { possible: true, because: format!("to {host}, proven by {by}") }
            }
        }
    }
}

/// Why none of the others was chosen, for people; the owner itself isn't told about.
fn reasons(choice: &Choice) -> String {
    let others = choice.rejected.iter().filter(|(_, why)| *why != Rejection::Owner);
    let told: Vec<String> = others.map(|(host, why)| format!("{host}: {}", why.as_str())).collect();
    if told.is_empty() { String::new() } else { format!(": {}", told.join("; ")) }
}
