//! A world that goes on where a live cluster is: the same log, the same boots and keepers, the same groups running
//! where its ledger says that they run.
//!
//! Contract: nothing is asked of the cluster but its ledger and who is heard. Hosts that aren't heard or aren't admitted
//! are dark; copies that the ledger doesn't count as whole can't be made whole here, so that what is unprotected stays
//! so; fence devices that weren't read well of late answer nobody.
//!
//! Not here: what happens then (`forecast`).

use super::host::SimHost;
use super::keeper::{KeeperStart, SimKeeper};
use super::place::{Place, Volume, Whole, WorkFault, Writes};
use super::world::{Happening, Tuning, World, WorldSpec};
use crate::config::ClusterSpec;
use crate::engine::{Armed, Input, KeeperOrder, Sight};
use quorum::id::{Epoch, GroupName, HostName, SiteName};
use quorum::ledger::{GroupState, Incarnation, IncarnationState, Ledger, TicketState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// So long the record with which a keeper goes on may stand until its agent has written the next one.
const UNTIL_RENEWED: Duration = Duration::from_secs(60);

/// The state of a live cluster.
#[derive(Clone, Debug)]
pub struct Live {
    /// What it has decided.
    pub ledger: Ledger,
    /// Hosts that are heard now.
    pub heard: BTreeSet<HostName>,
    /// Hosts that no fence device could prove off now.
    pub unfenceable: BTreeSet<HostName>,
}

impl Live {
    /// The admission under which a host serves now; nobody's if it isn't heard.
    fn serves(&self, host: &HostName) -> Option<(Incarnation, &IncarnationState)> {
        let (he, state) = self.ledger.admitted(host).filter(|_| self.heard.contains(host))?;
        Some((Incarnation { host: host.clone(), he }, state))
    }

    /// The epoch under which a group runs at a host.
    fn runs_at(&self, state: &GroupState, host: &HostName) -> Option<Epoch> {
        let ticket = state.ticket.as_ref().filter(|ticket| ticket.of.host == *host)?;
        let (of, _) = self.serves(host)?;
        let is_tied = state.pin.as_ref().is_some_and(|pin| pin.of == ticket.of);
        (ticket.state == TicketState::Running && (ticket.of == of || is_tied)).then_some(ticket.epoch)
    }

    fn sites(&self, spec: &ClusterSpec) -> BTreeMap<HostName, SiteName> {
        let mut sites: BTreeMap<HostName, SiteName> =
            spec.hosts.values().map(|host| (host.name.clone(), host.site.clone())).collect();
        for voter in self.ledger.membership().all_voters() {
            sites.entry(voter.host.clone()).or_insert_with(|| voter.site.clone());
        }
        sites
    }
}

/// The copy has everything, or follows without a write waiting for it.
fn is_whole(state: &GroupState, host: &HostName) -> bool {
    let follows = state.copies.get(host).is_some_and(|copy| copy.generation == state.generation);
    state.in_sync.contains(host) || follows
}

impl World {
    /// The world that goes on from `live`; none before a cluster exists.
    pub fn going_on(live: &Live, spec: &ClusterSpec) -> Option<Self> {
        let ledger = &live.ledger;
        let timing = ledger.timing()?.clone();
        let members = ledger.membership();
        let sites = live.sites(spec);
        let voter = |host: &HostName| members.all_voters().find(|voter| voter.host == *host).map(|voter| voter.id);
        let is_witness = |site: &SiteName| spec.sites.get(site).is_some_and(|site| site.witness);
        let hosts = sites.iter().map(|(host, site)| {
            let vote = voter(host);
            (host.clone(), site.clone(), vote, vote.is_some() && is_witness(site))
        });
        let classes = sites.keys().filter_map(|host| Some((host.clone(), live.serves(host)?.1.class)));
        let tuning = Tuning { timing: Some(timing.clone()), classes: classes.collect(), ..Tuning::default() };
        let (watchdog_worst, round_trip_max) = (timing.watchdog_worst, timing.rtt_max);
        let groups = Vec::new();
        let world = WorldSpec { seed: 1, hosts: hosts.collect(), groups, watchdog_worst, round_trip_max };
        let mut world = Self::tuned(&world, &tuning);
        world.founded.membership = members.clone();
        world.founded.genesis = Some(Arc::new(ledger.clone()));
        world.oracle.go_on(ledger);
        for from in sites.keys() {
            for to in sites.keys().filter(|to| *to != from) {
                let link = world.network.link(from, to);
                let same = sites[from] == sites[to];
                link.delay = if same { timing.rtt_max / 100 } else { timing.rtt_max / 2 };
            }
        }
        for target in &live.unfenceable {
            let executors = sites.keys().map(|executor| (executor.clone(), target.clone()));
            world.fences.cut.extend(executors);
        }
        world.put_groups(live);
        for host in sites.keys() {
            world.go_on(host, live);
        }
        Some(world)
    }

    /// Every group with what is of it at each host.
    fn put_groups(&mut self, live: &Live) {
        for (name, state) in live.ledger.groups() {
            let Some(spec) = live.ledger.group_spec(name) else { continue };
            let owner = state.ticket.as_ref().map(|ticket| (ticket.of.host.clone(), ticket.epoch));
            let follower = spec
                .hosts()
                .find(|host| owner.as_ref().is_some_and(|(owner, _)| owner != *host) && is_whole(state, host))
                .cloned();
            for host in spec.hosts().filter(|host| self.hosts.contains_key(*host)).cloned().collect::<Vec<_>>() {
                let running = live.runs_at(state, &host);
                let of = state.ticket.as_ref().filter(|_| running.is_some()).map(|ticket| ticket.of.he);
                let mut place = Place {
                    running,
                    started_under: of,
                    is_tied: running.is_some() && state.pin.as_ref().is_some_and(|pin| pin.acknowledged.is_some()),
                    volume: (!spec.volumes.is_empty()).then(|| copy_of(state, &host, owner.as_ref())),
                    ..Place::default()
                };
                if running.is_some() && place.volume.is_some() {
                    place.mirror.clone_from(&follower);
                    if follower.is_none() {
                        // Bringing a copy up to date takes as long as it takes: not within what is looked at here.
                        place.faults.insert("mirror", WorkFault::Hangs);
                    }
                }
                if let Some(sim) = self.hosts.get_mut(&host) {
                    sim.places.insert(name.clone(), place);
                }
            }
        }
    }

    /// A host goes on as it was admitted: its boot, its keeper with the record in force, and an agent that begins anew.
    fn go_on(&mut self, host: &HostName, live: &Live) {
        let Some((of, state)) = live.serves(host) else { return };
        let (Some(boot), Some(instance)) = (state.boot, state.instance) else { return };
        self.boot_as(host, (boot, instance));
        let timing = self.founded.timing.clone();
        let expires = self.hosts[host].read(self.now_ns).unwrap_or_default().plus(UNTIL_RENEWED);
        let order = KeeperOrder {
            era: live.ledger.era(),
            host_epoch: of.he,
            boot,
            instance,
            expires,
            sequence: 1,
            armed: armed(live, host),
        };
        let start = KeeperStart { boot, instance, timing: &timing, class: state.class, found: None };
        if let Some(boot) = self.hosts.get_mut(host).and_then(|host| host.boot.as_mut()) {
            boot.keeper = Some(SimKeeper::armed(start, order));
        }
        let number = self.hosts[host].boots;
        self.at(self.now_ns + 1_000, Happening::Keeper(host.clone(), (number, 1)));
        self.at(self.now_ns + 1_000_000, Happening::StartAgent(host.clone(), number));
    }

    /// Asynchronous copies are as far behind as they were attested last, for as long as this is told.
    pub(super) fn tell_lags(&mut self, lags: &[(HostName, GroupName, Duration)]) {
        for (owner, group, lag) in lags {
            let sight = Sight::Lag { behind: Some(*lag), bytes: 0 };
            if self.hosts.get(owner).and_then(SimHost::engine).is_some() {
                self.tell(owner, Input::Seen { group: group.clone(), sight });
            }
        }
    }
}

/// Who mirrors to a copy for which no write waits, and how far that was behind last.
pub(super) fn lags(live: &Live) -> Vec<(HostName, GroupName, Duration)> {
    let mut found = Vec::new();
    for (name, state) in live.ledger.groups() {
        let Some(ticket) = &state.ticket else { continue };
        let owner = &ticket.of.host;
        let behind = state.copies.iter().find(|(host, copy)| *host != owner && copy.generation == state.generation);
        found.extend(behind.map(|(_, copy)| (owner.clone(), name.clone(), copy.lag)));
    }
    found
}

fn armed(live: &Live, host: &HostName) -> BTreeMap<GroupName, Armed> {
    let of_group = |(name, state): (&GroupName, &GroupState)| {
        let epoch = live.runs_at(state, host)?;
        Some((name.clone(), Armed { epoch, pinned: state.pin.is_some() }))
    };
    live.ledger.groups().iter().filter_map(of_group).collect()
}

fn copy_of(state: &GroupState, host: &HostName, owner: Option<&(HostName, Epoch)>) -> Volume {
    let epoch = owner.map(|(_, epoch)| *epoch).unwrap_or_default();
    let writes = Writes::default();
    if owner.is_some_and(|(owner, _)| owner == host) {
        return Volume {
            generation: state.generation,
            writes,
            export: None,
            follows: None,
            reign: Some(epoch),
            has_refused: false,
        };
    }
    let is_whole = is_whole(state, host);
    let known = state.copies.get(host).map(|copy| copy.generation).unwrap_or_default();
    Volume {
        generation: if is_whole { state.generation } else { known },
        writes,
        export: owner.filter(|_| is_whole).map(|(owner, epoch)| (*epoch, owner.clone())),
        follows: Some((epoch, if is_whole { Whole::Recorded } else { Whole::Mixture })),
        reign: None,
        has_refused: false,
    }
}
