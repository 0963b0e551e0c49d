//! Power-on, and the agent process from start to end.

use super::clock::Clock;
use super::host::Boot;
use super::keeper::{KeeperStart, SimKeeper};
use super::network::nanos;
use super::world::{Happening, World};
use crate::engine::{Input, KeeperPage, Now};
use quorum::id::{AgentInstance, BootId, HostName, KeeperInstance};
use quorum::storage::StorageError;

/// From power-on until the keeper runs, and from there until the agent does.
const BOOT_NS: u64 = 500_000_000;
/// The service manager starts an agent that ended by itself after this.
pub(super) const RESTART_NS: u64 = 1_000_000_000;
/// A link is set up this many one-way delays after both ends live.
const HANDSHAKE: u32 = 3;

impl World {
    pub(super) fn boot(&mut self, name: &HostName) {
        let id = BootId(self.random.stamp());
        let instance = KeeperInstance(self.random.stamp());
        if !self.boot_as(name, (id, instance)) {
            return;
        }
        let number = self.hosts[name].boots;
        self.at(self.now_ns + BOOT_NS, Happening::Keeper(name.clone(), (number, 1)));
        self.at(self.now_ns + BOOT_NS, Happening::StartAgent(name.clone(), number));
    }

    /// Gives a host power, under these identities; whether it had none. Nothing runs on it yet.
    pub(super) fn boot_as(&mut self, name: &HostName, (id, instance): (BootId, KeeperInstance)) -> bool {
        // Somewhere between half of W and W: the worst fire time is the worst one.
        let bite_per_mille = 500 + self.random.below(501);
        let now_ns = self.now_ns;
        let timing = self.founded.timing.clone();
        let host = self.hosts.get_mut(name).expect("a host");
        if host.boot.is_some() {
            return false;
        }
        host.boots += 1;
        let number = host.boots;
        let class = host.spec.class;
        let keeper = SimKeeper::new(KeeperStart { boot: id, instance, timing: &timing, class, found: None });
        host.boot = Some(Boot {
            id,
            clock: Clock::new(now_ns, host.spec.rate_ppm),
            keeper: Some(keeper),
            left: None,
            agent: None,
            petted_ns: None,
            bite_ns: nanos(timing.watchdog_worst) * bite_per_mille / 1_000,
            is_dog_awaited: false,
            slice_frozen: false,
            is_asleep: false,
            keepers: 1,
            number,
        });
        true
    }

    pub(super) fn begin_agent(&mut self, name: &HostName, boot: u64) {
        let instance = AgentInstance(self.random.stamp());
        let founded = self.founded.clone();
        let now_ns = self.now_ns;
        let host = self.hosts.get_mut(name).expect("a host");
        let is_current = host.boot.as_ref().is_some_and(|now| now.number == boot && now.agent.is_none());
        if !is_current {
            return;
        }
        let Some(moment) = host.read(now_ns) else { return };
        let now = Now { moment, wall_ms: host.wall_ms(now_ns) };
        let mut started = host.start_agent(now, instance, &founded);
        if let Err(error @ (StorageError::Damaged { .. } | StorageError::Forgotten { .. })) = &started {
            // As the daemon does: what may have forgotten something is never a voter's again.
            let (voter, what) = (host.spec.voter.filter(|id| !host.ended.contains(id)), error.to_string());
            host.put_aside(voter, what.clone());
            started = host.start_agent(now, instance, &founded);
            self.oracle.forgets(name);
            self.note(Some(name), format!("the store is put aside: {what}"));
        }
        match started {
            // What an error of the disk left there counts as much as what was acknowledged.
            Ok(last) => self.oracle.persisted(name, last),
            Err(error) => return self.disk_failed(name, &error.to_string()),
        }
        self.note(Some(name), "agent started".into());
        let peers: Vec<HostName> = self.hosts.keys().filter(|peer| *peer != name).cloned().collect();
        for peer in peers {
            self.connect(name, &peer);
            self.connect(&peer, name);
        }
        if let Some(page) = self.page_of(name) {
            self.input(name, Input::Keeper(page));
        }
        self.input(name, Input::Wake);
        // What its predecessor was told of its mirrors, it is told again.
        self.mirrors_away.retain(|(owner, _)| owner != name);
        self.mirrors_look();
    }

    /// The agent's process ends; keeper, workloads and exports go on.
    pub(super) fn end_agent(&mut self, name: &HostName) {
        if let Some(boot) = self.hosts.get_mut(name).and_then(|host| host.boot.as_mut()) {
            boot.agent = None;
        }
    }

    /// The agent ended by itself: the service manager starts it again.
    pub(super) fn agent_failed(&mut self, name: &HostName) {
        self.end_agent(name);
        if let Some(boot) = &self.hosts[name].boot {
            self.at(self.now_ns + RESTART_NS, Happening::StartAgent(name.clone(), boot.number));
        }
    }

    /// An error of the disk ended the agent's process (protocol §2): nobody knows what is on it. Where the power was to
    /// go in the middle of a write, it goes.
    pub(super) fn disk_failed(&mut self, name: &HostName, because: &str) {
        self.note(Some(name), format!("the disk failed: {because}"));
        if std::mem::take(&mut self.hosts.get_mut(name).expect("a host").torn) {
            self.power_off(name);
            self.at(self.now_ns + RESTART_NS, Happening::PowerOn(name.clone()));
        } else {
            self.agent_failed(name);
        }
    }

    pub(super) fn page_of(&self, name: &HostName) -> Option<KeeperPage> {
        Some(self.hosts.get(name)?.boot.as_ref()?.keeper.as_ref()?.page())
    }

    /// The stream connection comes up a handshake later, if both ends still live then.
    pub(super) fn connect(&mut self, from: &HostName, to: &HostName) {
        let link = *self.network.link(from, to);
        let back = self.network.link(to, from).is_cut;
        let (Some(theirs), Some(ours)) = (self.process_of(to), self.process_of(from)) else { return };
        if !link.is_cut && !back && !self.network.refuses_handshakes {
            let at = self.now_ns + nanos(link.delay * HANDSHAKE);
            self.at(at, Happening::Link { to: to.clone(), from: from.clone(), agents: (theirs, ours) });
        }
    }
}
