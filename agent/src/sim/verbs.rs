//! What tests and scenarios do to a world. Each verb says what it does at this instant; none lets time pass.

use super::disk::SimDisk;
use super::host::SimHost;
use super::life::RESTART_NS;
use super::network::{Link, nanos};
use super::place::{Place, WorkFault};
use super::watch::Point;
use super::world::{Happening, World};
use crate::engine::{Input, Request, Sight};
use quorum::id::{GroupName, HostName, SiteName};
use quorum::ledger::{Person, PersonKey};
use quorum::storage::{Fault, MemoryDisk};
use std::time::Duration;

/// No version of an entry begins with this byte.
pub(super) const OF_THE_FUTURE: [u8; 3] = [250, 1, 2];

/// Power, processes, clocks.
impl World {
    /// The hosts of a site.
    pub fn hosts_of(&self, site: &SiteName) -> Vec<HostName> {
        self.hosts.iter().filter(|(_, host)| host.site() == site).map(|(name, _)| name.clone()).collect()
    }

    /// Gives a host power; it is up after a boot's time. Does nothing to one that has it.
    pub fn power_on(&mut self, host: &HostName) {
        self.note(Some(host), "power on".into());
        self.at(self.now_ns, Happening::PowerOn(host.clone()));
    }

    /// Takes a host's power, at this instant.
    pub fn power_off(&mut self, host: &HostName) {
        self.note(Some(host), "power off".into());
        self.flow();
        let seed = self.random.draw();
        if let Some(host) = self.hosts.get_mut(host) {
            // Nothing that a process does on its way out reaches the disk.
            host.disk.tear_after(1);
            host.boot = None;
            host.disk.crash(seed);
            host.places.values_mut().for_each(Place::cut);
        }
        self.mirrors_look();
    }

    /// Gives a whole site power.
    pub fn site_power_on(&mut self, site: &SiteName) {
        self.hosts_of(site).iter().for_each(|host| self.power_on(host));
    }

    /// Takes a whole site's power, at one instant.
    pub fn site_power_off(&mut self, site: &SiteName) {
        self.hosts_of(site).iter().for_each(|host| self.power_off(host));
    }

    /// Kills a host's agent for good; keeper, workloads and exports go on.
    pub fn kill_agent(&mut self, host: &HostName) {
        self.note(Some(host), "agent killed".into());
        self.end_agent(host);
    }

    /// Kills a host's agent; the service manager starts it again after a second.
    pub fn crash_agent(&mut self, host: &HostName) {
        self.note(Some(host), "agent crashed".into());
        self.agent_failed(host);
    }

    /// Starts a host's agent again. Does nothing where one runs.
    pub fn start_agent(&mut self, host: &HostName) {
        let number = self.hosts[host].boots;
        self.at(self.now_ns, Happening::StartAgent(host.clone(), number));
    }

    /// Kills a host's keeper for good: nobody pets from now on. The watchdog's holder lives, so nothing closes the
    /// device.
    pub fn kill_keeper(&mut self, host: &HostName) {
        self.note(Some(host), "keeper killed".into());
        if let Some(boot) = self.hosts.get_mut(host).and_then(|host| host.boot.as_mut())
            && let Some(keeper) = boot.keeper.take()
        {
            boot.left = Some(keeper.left());
        }
    }

    /// Starts a new keeper where none runs; it takes the watchdog over and ends whatever its predecessor had armed.
    pub fn start_keeper(&mut self, host: &HostName) {
        self.begin_keeper(host);
    }

    /// From now on the watchdog of this boot refuses every pet.
    pub fn break_watchdog(&mut self, host: &HostName) {
        self.note(Some(host), "watchdog broken".into());
        if let Some(keeper) = self.hosts.get_mut(host).and_then(|host| host.boot.as_mut()?.keeper.as_mut()) {
            keeper.is_device_broken = true;
        }
    }

    /// Stops the agent's process (SIGSTOP) for so long, beginning now.
    pub fn stop_agent(&mut self, host: &HostName, span: Duration) {
        self.note(Some(host), format!("agent stopped for {} ms", span.as_millis()));
        self.pause_agent(host, nanos(span));
    }

    pub(super) fn pause_agent(&mut self, host: &HostName, span_ns: u64) {
        let until = self.now_ns + span_ns;
        if let Some(agent) = self.agent_mut(host) {
            agent.paused_until = agent.paused_until.max(until);
        }
    }

    /// Stops the keeper's process for so long, beginning now.
    pub fn stop_keeper(&mut self, host: &HostName, span: Duration) {
        self.note(Some(host), format!("keeper stopped for {} ms", span.as_millis()));
        let until = self.now_ns + nanos(span);
        if let Some(keeper) = self.hosts.get_mut(host).and_then(|host| host.boot.as_mut()?.keeper.as_mut()) {
            keeper.paused_until = keeper.paused_until.max(until);
        }
    }

    /// Stops a process for so long the next time it comes to this point.
    pub fn stop_at(&mut self, host: &HostName, point: Point, span: Duration) {
        self.note(Some(host), format!("to be stopped at {point:?} for {} ms", span.as_millis()));
        if let Some(host) = self.hosts.get_mut(host) {
            host.stops.insert(point, span);
        }
    }

    /// Suspends a whole host for so long: nothing on it executes, its watchdog counts on, what is sent to it is lost.
    pub fn suspend(&mut self, host: &HostName, span: Duration) {
        self.note(Some(host), format!("suspended for {} ms", span.as_millis()));
        self.flow();
        let (now_ns, span_ns) = (self.now_ns, nanos(span));
        self.pause_agent(host, span_ns);
        let Some(boot) = self.hosts.get_mut(host).and_then(|host| host.boot.as_mut()) else { return };
        boot.is_asleep = true;
        if let Some(keeper) = &mut boot.keeper {
            keeper.paused_until = keeper.paused_until.max(now_ns + span_ns);
        }
        let number = boot.number;
        self.at(now_ns + span_ns, Happening::WakesUp(host.clone(), number, span_ns));
        self.mirrors_look();
    }

    pub(super) fn wakes_up(&mut self, host: &HostName, number: u64, span_ns: u64) {
        self.flow();
        let now_ns = self.now_ns;
        let Some(boot) = self.hosts.get_mut(host).and_then(|host| host.boot.as_mut()) else { return };
        if boot.number == number {
            boot.is_asleep = false;
            boot.clock.suspended(now_ns, span_ns);
            if let Some(agent) = &mut boot.agent {
                // Timers run by a clock that slept.
                agent.wake_ns = agent.wake_ns.min(now_ns);
                let process = agent.number;
                self.at(now_ns, Happening::Wake(host.clone(), process));
            }
            self.mirrors_look();
        }
    }

    /// From now on the host's clocks run this many parts per million fast, or slow if negative.
    pub fn set_clock_rate(&mut self, host: &HostName, rate_ppm: i64) {
        let now_ns = self.now_ns;
        if let Some(host) = self.hosts.get_mut(host) {
            host.spec.rate_ppm = rate_ppm;
            if let Some(boot) = &mut host.boot {
                boot.clock.set_rate(now_ns, rate_ppm);
            }
        }
    }
}

/// Network.
impl World {
    /// Cuts or heals one direction.
    pub fn cut(&mut self, from: &HostName, to: &HostName, is_cut: bool) {
        self.note(None, format!("{} {from} -> {to}", if is_cut { "cut" } else { "heal" }));
        self.flow();
        self.network.link(from, to).is_cut = is_cut;
        if !is_cut {
            self.connect(from, to);
            self.connect(to, from);
        }
        self.mirrors_look();
    }

    /// Cuts or heals both directions between a host and everybody else.
    pub fn isolate(&mut self, host: &HostName, is_cut: bool) {
        let others: Vec<HostName> = self.hosts.keys().filter(|other| *other != host).cloned().collect();
        for other in others {
            self.cut(host, &other, is_cut);
            self.cut(&other, host, is_cut);
        }
    }

    /// Cuts or heals both directions between a site and all others; within it everything goes on.
    pub fn isolate_site(&mut self, site: &SiteName, is_cut: bool) {
        let (inside, outside): (Vec<HostName>, Vec<HostName>) =
            self.hosts.keys().cloned().partition(|host| self.hosts[host].site() == site);
        for one in &inside {
            for other in &outside {
                self.cut(one, other, is_cut);
                self.cut(other, one, is_cut);
            }
        }
    }

    /// Cuts or heals one direction between two sites.
    pub fn cut_sites(&mut self, from: &SiteName, to: &SiteName, is_cut: bool) {
        for one in self.hosts_of(from) {
            for other in self.hosts_of(to) {
                self.cut(&one, &other, is_cut);
            }
        }
    }

    /// Changes one direction in any other way: delay, jitter, loss, copies, strays.
    pub fn shape(&mut self, from: &HostName, to: &HostName, how: impl FnOnce(&mut Link)) {
        how(self.network.link(from, to));
        let link = self.network.seen(from, to);
        self.note(None, format!("shape {from} -> {to}: {link:?}"));
    }
}

/// Disks and drivers.
impl World {
    /// No flush of the host's disk ends before so long from now.
    pub fn stall_disk(&mut self, host: &HostName, span: Duration) {
        self.note(Some(host), format!("disk stalls for {} ms", span.as_millis()));
        let until = self.now_ns + nanos(span);
        if let Some(host) = self.hosts.get_mut(host) {
            host.stalled_until = host.stalled_until.max(until);
        }
    }

    /// The next write to the voter's store goes wrong; the agent ends by itself and is started again.
    pub fn fail_disk(&mut self, host: &HostName, fault: Fault) {
        self.note(Some(host), format!("disk fault: {fault:?}"));
        if let Some(host) = self.hosts.get_mut(host) {
            host.disk.fail_next(fault);
        }
    }

    /// Power goes while the voter's store is being written, so many operations from now; of what was under way any part
    /// may have reached the disk. The host is on again after a second.
    pub fn tear_disk(&mut self, host: &HostName, operations: u64) {
        self.note(Some(host), format!("power goes in the middle of write {operations}"));
        if let Some(host) = self.hosts.get_mut(host) {
            host.disk.tear_after(operations.max(1));
            host.torn = true;
        }
    }

    /// Another disk is in the host from now on. Only while it has no power.
    ///
    /// # Errors
    /// If the host has power.
    pub fn replace_disk(&mut self, host: &HostName, disk: MemoryDisk) -> Result<(), String> {
        self.note(Some(host), "another disk".into());
        let state = self.hosts.get_mut(host).ok_or_else(|| format!("no host {host}"))?;
        if state.is_powered() {
            return Err(format!("{host} has power; switch it off first"));
        }
        state.disk = SimDisk::Memory(disk);
        Ok(())
    }

    /// A bit of what the voter has stored flips. It is found at the next start, which then refuses.
    pub fn flip_disk(&mut self, host: &HostName) {
        self.note(Some(host), "a stored bit flips".into());
        let bit = self.random.draw();
        if let Some(host) = self.hosts.get_mut(host) {
            host.disk.flip_bit(bit);
        }
    }

    /// The next `times` pieces of work of this name fail; see [`Place::name`].
    pub fn fail_work(&mut self, host: &HostName, group: &GroupName, what: (&'static str, u32)) {
        self.note(Some(host), format!("the next {} of {} of {group} fail", what.1, what.0));
        self.place_mut(host, group).faults.insert(what.0, WorkFault::Fails(what.1));
    }

    /// Work of this name doesn't end until it is mended.
    pub fn hang_work(&mut self, host: &HostName, group: &GroupName, what: &'static str) {
        self.note(Some(host), format!("{what} of {group} hangs"));
        self.place_mut(host, group).faults.insert(what, WorkFault::Hangs);
    }

    /// Everything that was planted with `fail_work` and `hang_work` is gone.
    pub fn mend_work(&mut self, host: &HostName, group: &GroupName) {
        self.place_mut(host, group).faults.clear();
    }

    /// The workload's process ends by itself; its driver sees that.
    pub fn crash_workload(&mut self, host: &HostName, group: &GroupName) {
        self.note(Some(host), format!("{group} crashed"));
        self.flow();
        let place = self.place_mut(host, group);
        if place.running.is_some() {
            place.end();
            let sight = Sight::Exited { because: "it crashed".into() };
            self.tell(host, Input::Seen { group: group.clone(), sight });
        }
    }
}

/// People, and the end of all faults.
impl World {
    /// Sets or takes back a mark: coverage tells which marks were set while a step of a plan was under way.
    pub fn mark(&mut self, mark: &'static str, is_set: bool) {
        if !is_set {
            self.oracle.marks.remove(mark);
            return;
        }
        self.oracle.marks.insert(mark);
        let Some(ledger) = self.ledger() else { return };
        let open = ledger.plans().values().filter(|plan| plan.is_open());
        let cells: Vec<_> =
            open.filter_map(|plan| Some((mark, plan.plan.kind, plan.plan.steps[plan.current_step()?].kind))).collect();
        self.oracle.seen.cells.extend(cells);
    }

    /// What a leader of a newer version would write and this one can't read gets into the log. Returns whether anybody
    /// leads.
    pub fn append_unknown(&mut self) -> bool {
        self.note(None, "an entry of a newer version".into());
        let agents = self.hosts.values_mut().filter_map(SimHost::engine_mut);
        agents.filter(|engine| engine.is_leader()).any(|engine| engine.append_raw(OF_THE_FUTURE.to_vec()))
    }

    /// Another release is installed on `host`: its next agent understands up to `version`.
    pub fn install(&mut self, host: &HostName, version: u32) {
        self.note(Some(host), format!("a release that understands version {version}"));
        self.hosts.get_mut(host).expect("a host").understands = Some(version);
    }

    /// Hands a request to a host's agent; the answer is found under the ticket returned.
    pub fn ask(&mut self, host: &HostName, request: Request) -> u64 {
        let by = Person { name: "operator".into(), key: PersonKey::Local(0) };
        self.ask_as(host, by, request)
    }

    /// As [`World::ask`], by somebody.
    pub fn ask_as(&mut self, host: &HostName, by: Person, request: Request) -> u64 {
        self.tickets += 1;
        self.tell(host, Input::Operator { ticket: self.tickets, by, request: Box::new(request) });
        self.tickets
    }

    /// Ends every fault at this instant: links are whole, disks work, processes go on when their stop is over, what
    /// has no
    /// power or no process gets it. What people ordered stays.
    pub fn heal(&mut self) {
        self.note(None, "everything is healed".into());
        self.flow();
        self.network.heal();
        self.fences.cut.clear();
        self.fences.stubborn.clear();
        let hosts: Vec<HostName> = self.hosts.keys().cloned().collect();
        for name in &hosts {
            let host = self.hosts.get_mut(name).expect("a host");
            host.stalled_until = 0;
            host.stops.clear();
            host.disk.mend();
            host.places.values_mut().for_each(|place| place.faults.clear());
            let (is_on, number) = (host.boot.is_some(), host.boots);
            let is_broken =
                host.boot.as_ref().and_then(|boot| boot.keeper.as_ref()).is_some_and(|keeper| keeper.is_device_broken);
            if is_broken {
                self.power_off(name);
                self.power_on(name);
                continue;
            }
            let has_keeper = host.boot.as_ref().is_some_and(|boot| boot.keeper.is_some());
            if !is_on {
                self.power_on(name);
                continue;
            }
            if !has_keeper {
                self.start_keeper(name);
            }
            if self.process_of(name).is_none() {
                self.at(self.now_ns + RESTART_NS, Happening::StartAgent(name.clone(), number));
            }
        }
        for one in &hosts {
            for other in hosts.iter().filter(|other| *other != one) {
                self.connect(one, other);
            }
        }
        self.mirrors_look();
    }
}
