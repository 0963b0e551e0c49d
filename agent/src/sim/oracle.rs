//! Looks at the whole world after every event, with eyes that no agent has.

use super::host::SimHost;
use quorum::id::{Epoch, GroupName, HostName};
use std::collections::BTreeMap;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, as in protocol §10.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

/// What the oracle remembers between events.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    epochs: BTreeMap<GroupName, Epoch>,
    hashes: BTreeMap<u64, [u8; 32]>,
    applied: BTreeMap<HostName, u64>,
    /// The writes of each group that were answered: what runs has them all.
    answered: BTreeMap<GroupName, u64>,
}

impl Oracle {
    /// Looks at all hosts.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn look(&mut self, hosts: &BTreeMap<HostName, SimHost>) -> Result<(), Violation> {
        self.at_most_one_runs(hosts)?;
        self.epochs_only_rise(hosts)?;
        self.nothing_answered_is_lost(hosts)?;
        self.replicas_agree(hosts)
    }

    fn at_most_one_runs(&self, hosts: &BTreeMap<HostName, SimHost>) -> Result<(), Violation> {
        let mut running: BTreeMap<&GroupName, (&HostName, Epoch)> = BTreeMap::new();
        for (name, host) in hosts {
            for (group, place) in host.places.iter().filter(|_| host.is_powered()) {
                let Some(epoch) = place.running else { continue };
                if let Some((other, older)) = running.insert(group, (name, epoch)) {
                    let text = format!("{group} runs on {other} (epoch {older}) and on {name} (epoch {epoch})");
                    return Err(Violation { invariant: "I1", text });
                }
            }
        }
        Ok(())
    }

    fn epochs_only_rise(&mut self, hosts: &BTreeMap<HostName, SimHost>) -> Result<(), Violation> {
        for host in hosts.values() {
            for (group, place) in &host.places {
                let Some(epoch) = place.running else { continue };
                let highest = self.epochs.entry(group.clone()).or_default();
                if epoch < *highest {
                    let text = format!("{group} runs at epoch {epoch} after epoch {highest} ran");
                    return Err(Violation { invariant: "I3", text });
                }
                *highest = epoch;
            }
        }
        Ok(())
    }

    /// Whoever runs a group has every write that was answered before (nobody accepts a loss in these stories).
    fn nothing_answered_is_lost(&mut self, hosts: &BTreeMap<HostName, SimHost>) -> Result<(), Violation> {
        for (name, host) in hosts.iter().filter(|(_, host)| host.is_powered()) {
            for (group, place) in host.places.iter().filter(|(_, place)| place.running.is_some()) {
                let Some(volume) = &place.volume else { continue };
                let answered = self.answered.entry(group.clone()).or_default();
                if volume.writes < *answered {
                    let text =
                        format!("{group} runs on {name} with {} writes; {answered} were answered", volume.writes);
                    return Err(Violation { invariant: "I10", text });
                }
                *answered = volume.writes;
            }
        }
        Ok(())
    }

    /// The state hash per index is equal on all replicas.
    fn replicas_agree(&mut self, hosts: &BTreeMap<HostName, SimHost>) -> Result<(), Violation> {
        for (name, host) in hosts {
            let Some(engine) = host.engine() else { continue };
            let ledger = engine.ledger();
            let index = ledger.applied().0;
            if self.applied.insert(name.clone(), index) == Some(index) {
                continue;
            }
            let hash = ledger.chain_hash();
            let known = *self.hashes.entry(index).or_insert(hash);
            if known != hash {
                let text = format!("{name} disagrees about the state at index {index}");
                return Err(Violation { invariant: "I14", text });
            }
        }
        Ok(())
    }
}
