//! A host's vote: it ends, begins under another id, forgets, and is recovered.

use super::disk::SimDisk;
use super::world::World;
use crate::engine::{Input, RecoverError};
use quorum::id::{AgentInstance, Era, HostName, VoterId};
use quorum::ledger::{Decision, Person, PersonKey};
use quorum::storage::{MemoryDisk, Seen};

/// What the driver does for the engine.
impl World {
    pub(super) fn remember(&mut self, name: &HostName, voter: VoterId, seen: Seen) {
        let Some(store) = self.agent_mut(name).and_then(|agent| agent.store.as_mut()) else { return };
        if let Err(error) = store.remember(voter, seen) {
            self.disk_failed(name, &error.to_string());
        }
    }

    /// An empty store is founded for a host that was made a member.
    pub(super) fn joins(&mut self, name: &HostName, process: u64, as_voter: (VoterId, Era)) {
        let host = self.hosts.get_mut(name).expect("a host");
        let agent = host.boot.as_ref().and_then(|boot| boot.agent.as_ref());
        let Some(instance) = agent.filter(|agent| agent.number == process).map(|agent| agent.instance) else { return };
        match host.join(as_voter, instance) {
            Ok((store, vote)) => {
                host.spoiled = None;
                self.oracle.forgets(name);
                if let Some(agent) = self.agent_mut(name) {
                    agent.store = Some(store);
                    agent.store_number += 1;
                }
                self.input(name, Input::Joined(Box::new(vote)));
            }
            Err(error) => self.disk_failed(name, &error.to_string()),
        }
    }

    pub(super) fn vote_ended(&mut self, name: &HostName, voter: VoterId, because: String) {
        if let Some(agent) = self.agent_mut(name) {
            agent.store = None;
            agent.store_number += 1;
        }
        self.hosts.get_mut(name).expect("a host").put_aside(Some(voter), because);
        self.oracle.forgets(name);
    }
}

/// What people, machines and fate do to votes.
impl World {
    /// A copy of what is durable on a host's disk, as people make them; `None` of one that isn't kept in memory.
    pub fn back_up_disk(&self, host: &HostName) -> Option<MemoryDisk> {
        match &self.hosts.get(host)?.disk {
            SimDisk::Memory(disk) => Some(disk.backup()),
            SimDisk::Blocks(_) => None,
        }
    }

    /// Tells a host's agent that its machine was rolled back, as the driver does when it sees another generation id.
    pub fn roll_back(&mut self, host: &HostName) {
        self.note(Some(host), "another generation id".into());
        self.tell(host, Input::RolledBack { because: "the generation id changed".into() });
    }

    /// `antipode quorum recover` on a host whose agent doesn't run.
    ///
    /// # Errors
    /// [`RecoverError`]; nothing was changed.
    ///
    /// # Panics
    /// When its agent runs.
    pub fn recover(&mut self, name: &HostName) -> Result<(), RecoverError> {
        assert!(self.process_of(name).is_none(), "the agent is stopped first");
        self.note(Some(name), "quorum recover".into());
        let by = Person { name: "operator".into(), key: PersonKey::Local(0) };
        let by = Decision { by, reason: "the others burned down".into(), shown: "nobody answers".into() };
        let instance = AgentInstance(self.random.stamp());
        self.hosts.get_mut(name).expect("a host").recover(by, instance)
    }
}
