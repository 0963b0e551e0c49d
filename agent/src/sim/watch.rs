//! The keeper's looks, action by action, and the watchdog that counts from the last pet.

use super::keeper::{KeeperStart, SimKeeper, SliceSight};
use super::network::nanos;
use super::world::{Happening, World};
use crate::engine::Input;
use crate::keeper::core::Action;
use quorum::id::{HostName, KeeperInstance};
use quorum::mutants;

/// Most actions of one look.
const ACTIONS_MAX: u32 = 32;

/// An instruction before which a process can be stopped for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The agent, before it takes its next input.
    AgentReads,
    /// The agent, between its next decision and the first effect of it.
    AgentActs,
    /// The keeper, before it reads record and clock.
    KeeperReads,
    /// The keeper, between the check and the pet.
    KeeperPets,
    /// The keeper, between the latch and the freeze.
    KeeperFreezes,
    /// The keeper, between the freeze and the kill.
    KeeperKills,
    /// The keeper, before it says that all is gone.
    KeeperAttests,
    /// The keeper, before it thaws the slice for a new host epoch.
    KeeperThaws,
}

impl Point {
    /// Every point.
    pub const ALL: [Self; 8] = [
        Self::AgentReads,
        Self::AgentActs,
        Self::KeeperReads,
        Self::KeeperPets,
        Self::KeeperFreezes,
        Self::KeeperKills,
        Self::KeeperAttests,
        Self::KeeperThaws,
    ];

    fn before(action: Action) -> Option<Self> {
        match action {
            Action::Pet => Some(Self::KeeperPets),
            Action::Freeze => Some(Self::KeeperFreezes),
            Action::Kill => Some(Self::KeeperKills),
            Action::Attest(_) => Some(Self::KeeperAttests),
            Action::Thaw(_) => Some(Self::KeeperThaws),
            Action::SetUp | Action::Sweep | Action::Withhold => None,
        }
    }
}

impl World {
    /// A regular look: once a period, unless the process is stopped or gone.
    pub(super) fn keeper_looks(&mut self, name: &HostName, process: (u64, u64)) {
        let now_ns = self.now_ns;
        let period = nanos(self.founded.timing.keeper_period);
        let Some(keeper) = self.keeper_mut(name, process) else { return };
        if keeper.paused_until > now_ns {
            let at = keeper.paused_until;
            self.at(at, Happening::Keeper(name.clone(), process));
            return;
        }
        self.keeper_acts(name, process, None);
        self.at(now_ns + period, Happening::Keeper(name.clone(), process));
    }

    /// The keeper's process `process` (boot, keeper), if it still lives and its host isn't asleep.
    fn keeper_mut(&mut self, name: &HostName, (boot, keeper): (u64, u64)) -> Option<&mut SimKeeper> {
        let now = self.hosts.get_mut(name)?.boot.as_mut()?;
        (now.number == boot && now.keepers == keeper).then_some(now.keeper.as_mut()).flatten()
    }

    /// Acts until the core pets or withholds. `resumed`: decided before the process was stopped.
    pub(super) fn keeper_acts(&mut self, name: &HostName, process: (u64, u64), mut resumed: Option<Action>) {
        let now_ns = self.now_ns;
        for _ in 0..ACTIONS_MAX {
            let seen = self.slice_seen(name);
            let Some(now) =
                self.hosts.get_mut(name).and_then(|host| host.boot.as_ref()).map(|boot| boot.clock.read(now_ns))
            else {
                return;
            };
            let Some(keeper) = self.keeper_mut(name, process) else { return };
            let was_decided = resumed.is_some();
            let before = keeper.state();
            let action = resumed.take().unwrap_or_else(|| keeper.decide(now, seen));
            let after = (keeper.state(), keeper.reason());
            if before != after.0 {
                self.note(Some(name), format!("keeper {before:?} -> {:?} ({:?})", after.0, after.1));
            }
            if !was_decided && self.is_stopped_before(name, process, action) {
                return;
            }
            self.keeper_performs(name, process, action);
            if matches!(action, Action::Pet | Action::Withhold) {
                break;
            }
        }
        self.tell_keeper(name, process);
    }

    /// Whether the process is stopped right before this action; it goes on with it later, whatever happens meanwhile.
    fn is_stopped_before(&mut self, name: &HostName, process: (u64, u64), action: Action) -> bool {
        let Some(point) = Point::before(action) else { return false };
        let Some(span) = self.hosts.get_mut(name).and_then(|host| host.stops.remove(&point)) else { return false };
        let until = self.now_ns + nanos(span);
        if let Some(keeper) = self.keeper_mut(name, process) {
            keeper.paused_until = until;
        }
        self.note(Some(name), format!("keeper stopped before {action:?} for {} ms", span.as_millis()));
        self.reached(point);
        self.at(until, Happening::KeeperResumes(name.clone(), process, action));
        true
    }

    /// What the keeper can see of the slice.
    fn slice_seen(&self, name: &HostName) -> SliceSight {
        let host = &self.hosts[name];
        let running = || host.places.iter().filter(|(_, place)| place.running.is_some());
        SliceSight {
            is_empty: running().all(|(_, place)| place.is_tied),
            is_frozen: host.boot.as_ref().is_none_or(|boot| boot.slice_frozen),
            tied: running().filter(|(_, place)| place.is_tied).map(|(group, _)| group.clone()).collect(),
        }
    }

    fn keeper_performs(&mut self, name: &HostName, process: (u64, u64), action: Action) {
        if matches!(action, Action::Freeze | Action::Kill | Action::Thaw(_)) {
            self.flow();
        }
        let now_ns = self.now_ns;
        let Some(keeper) = self.keeper_mut(name, process) else { return };
        keeper.perform(action);
        match action {
            Action::Freeze => self.set_frozen(name, true),
            Action::Thaw(_) => self.set_frozen(name, false),
            Action::Kill => self.kill_slice(name),
            Action::Pet => {
                if let Some(boot) = self.hosts.get_mut(name).and_then(|host| host.boot.as_mut()) {
                    boot.petted_ns = Some(now_ns);
                }
                self.petted(name);
            }
            Action::SetUp | Action::Sweep | Action::Attest(_) | Action::Withhold => {}
        }
    }

    fn set_frozen(&mut self, name: &HostName, is_frozen: bool) {
        if let Some(boot) = self.hosts.get_mut(name).and_then(|host| host.boot.as_mut()) {
            boot.slice_frozen = is_frozen;
        }
    }

    fn kill_slice(&mut self, name: &HostName) {
        let host = self.hosts.get_mut(name).expect("a host");
        let mut any = false;
        for place in host.places.values_mut() {
            if place.running.is_some() && !place.is_tied {
                place.end();
                any = true;
            }
        }
        if any {
            self.note(Some(name), "keeper killed the protected slice".into());
        }
    }

    /// A pet reached the watchdog.
    fn petted(&mut self, name: &HostName) {
        let now_ns = self.now_ns;
        self.judge_pet(name);
        let Some(boot) = self.hosts.get_mut(name).and_then(|host| host.boot.as_mut()) else { return };
        if !boot.is_dog_awaited {
            boot.is_dog_awaited = true;
            let (at, number) = (now_ns + boot.bite_ns, boot.number);
            self.at(at, Happening::WatchdogLooks(name.clone(), number));
        }
    }

    fn tell_keeper(&mut self, name: &HostName, process: (u64, u64)) {
        let Some(keeper) = self.keeper_mut(name, process) else { return };
        if keeper.has_news() {
            let page = keeper.page();
            self.tell(name, Input::Keeper(page));
        }
    }

    pub(super) fn watchdog_looks(&mut self, name: &HostName, number: u64) {
        let now_ns = self.now_ns;
        let delta_hw = nanos(self.founded.timing.delta_hw);
        let host = self.hosts.get_mut(name).expect("a host");
        let Some(boot) = host.boot.as_mut().filter(|boot| boot.number == number) else { return };
        let bites = boot.petted_ns.map(|petted| petted + boot.bite_ns);
        match bites {
            Some(at) if at > now_ns => self.at(at, Happening::WatchdogLooks(name.clone(), number)),
            // What every inequality rests on: with a watchdog that doesn't fire, the oracle must see what that costs.
            Some(_) if mutants::on("sim.watchdog_sleeps") => {}
            Some(_) => {
                self.note(Some(name), "watchdog fires".into());
                self.at(now_ns + delta_hw, Happening::Reset(name.clone(), number));
            }
            None => boot.is_dog_awaited = false,
        }
    }

    /// δ_hw after the watchdog fired the host executes nothing any more, and boots.
    pub(super) fn reset(&mut self, name: &HostName, number: u64) {
        if self.hosts[name].boot.as_ref().is_some_and(|boot| boot.number == number) {
            self.note(Some(name), "watchdog reset".into());
            self.power_off(name);
            self.power_on(name);
        }
    }

    /// A new keeper process takes over what an earlier one of this boot left.
    pub(super) fn begin_keeper(&mut self, name: &HostName) {
        let instance = KeeperInstance(self.random.stamp());
        let timing = self.founded.timing.clone();
        let host = self.hosts.get_mut(name).expect("a host");
        let class = host.spec.class;
        let Some(boot) = host.boot.as_mut().filter(|boot| boot.keeper.is_none()) else { return };
        boot.keepers += 1;
        let found = boot.left.take();
        let start = KeeperStart { boot: boot.id, instance, timing: &timing, class, found };
        boot.keeper = Some(SimKeeper::new(start));
        let process = (boot.number, boot.keepers);
        self.note(Some(name), "keeper started".into());
        self.at(self.now_ns, Happening::Keeper(name.clone(), process));
    }
}
