//! What the executor can tell: `fence status`, `fence test`, `fence run --dry-run`.

use super::proofs::Tested;
use super::{Handle, Inner};
use crate::facts::{DeviceFacts, Ends, Proves};
use crate::findings::{Attention, Outlook, ProofRecord, View};
use crate::name::{DeviceName, HostName};
use crate::plan::{NoPlan, Plan, Starts};
use crate::reading::Observed;
use crate::request::FenceOrder;
use crate::session::Act;
use serde::Serialize;
use std::time::Duration;

/// One device, as the schedule knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// Its facts.
    pub facts: DeviceFacts,
    /// Age of the last good reading.
    pub proof_age: Option<Duration>,
    /// How long that took.
    pub latency: Option<Duration>,
    /// What that reading showed; none since this process began.
    pub shows: Option<Observed>,
    /// What went wrong the last time.
    pub trouble: Option<String>,
    /// Failures since the last good reading.
    pub failures_in_a_row: u32,
}

/// Everything at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The devices.
    pub devices: Vec<DeviceStatus>,
    /// Per host and level: what could be proven now, and how old the proof of that is.
    pub outlook: Vec<Outlook>,
    /// What deserves attention, what matters most first.
    pub attention: Vec<Attention>,
    /// Hosts with an order under way.
    pub under_way: Vec<HostName>,
}

/// One call that an order would make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DryCall {
    /// The device.
    pub device: DeviceName,
    /// Its kind.
    pub kind: &'static str,
    /// To do what.
    pub act: Act,
    /// Commands and requests, secrets masked.
    pub shown: Vec<String>,
}

/// One level of a dry run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DryLevel {
    /// Its number, counted from 1.
    pub number: usize,
    /// When it starts.
    pub starts: Starts,
    /// The evidence to expect.
    pub would_prove: Option<String>,
    /// Why none is to be expected.
    pub why_not: Option<String>,
    /// Writes and service that it would end.
    pub ends: Ends,
    /// Its calls.
    pub calls: Vec<DryCall>,
}

/// What an order would do. Nothing was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DryRun {
    /// The host.
    pub target: HostName,
    /// The levels.
    pub levels: Vec<DryLevel>,
}

impl Inner {
    pub(super) fn view<T>(&self, judge: impl FnOnce(View<'_>) -> T) -> T {
        let state = self.state();
        let (topology, records) = (&state.built.topology, &state.records);
        judge(View { topology, records, now: self.clock.now(), stale_after: state.params.stale_after })
    }
}

impl Handle {
    /// The present state of everything.
    pub fn status(&self) -> Status {
        let (outlook, attention) = self.inner.view(|view| (view.outlook(), view.attention()));
        let now = self.inner.clock.now();
        let state = self.inner.state();
        let device = |facts: &DeviceFacts| {
            let none = ProofRecord::default();
            let record = state.records.get(&facts.name).unwrap_or(&none);
            DeviceStatus {
                facts: facts.clone(),
                proof_age: record.age(now),
                latency: record.latency,
                shows: record.observed.clone(),
                trouble: record.trouble.as_ref().map(ToString::to_string),
                failures_in_a_row: record.failures_in_a_row,
            }
        };
        let devices = state.built.topology.devices().values().map(device).collect();
        let under_way = state.tasks.keys().map(|key| key.target.clone()).collect();
        Status { devices, outlook, attention, under_way }
    }

    /// Reads every device now, and says what came of it. Switches nothing.
    pub async fn probe_all(&self) -> Vec<Tested> {
        let slots: Vec<_> = self.inner.state().slots.values().cloned().collect();
        self.probe_slots(slots).await
    }

    /// Reads the devices of one host now.
    pub async fn probe_host(&self, host: &HostName) -> Vec<Tested> {
        let slots: Vec<_> = {
            let state = self.inner.state();
            let fenced = state.built.topology.targets().get(host);
            let mut names: Vec<&DeviceName> =
                fenced.map(|fenced| fenced.levels.iter().flatten().collect()).unwrap_or_default();
            names.sort();
            names.dedup();
            names.into_iter().filter_map(|name| state.slots.get(name).cloned()).collect()
        };
        self.probe_slots(slots).await
    }

    async fn probe_slots(&self, slots: Vec<super::Slot>) -> Vec<Tested> {
        let tests: Vec<_> = slots
            .into_iter()
            .map(|slot| {
                let inner = self.inner.clone();
                tokio::spawn(async move { inner.test(&slot).await })
            })
            .collect();
        let mut tested = Vec::new();
        for test in tests {
            // A test ends by its device's limit; one that panicked is left out and shows as untested.
            tested.extend(test.await.ok());
        }
        tested
    }

    /// What `order` would do. Calls nothing.
    ///
    /// # Errors
    /// [`NoPlan`] if there is nothing to do for it.
    pub fn dry_run(&self, order: &FenceOrder) -> Result<DryRun, NoPlan> {
        let state = self.inner.state();
        let plan = Plan::of(&state.built.topology, order)?;
        let levels = plan.levels.iter().map(|level| {
            let (would_prove, why_not) = match &level.hope {
                Ok((kind, _)) => (Some(kind.to_string()), None),
                Err(not_enough) => (None, Some(not_enough.to_string())),
            };
            let calls = level.devices.iter().flat_map(|facts| {
                let slot = state.slots.get(&facts.name);
                let acts: &[Act] = match facts.proves {
                    Proves::Elsewhere(_) => &[],
                    Proves::Nothing(_) => &[Act::Off],
                    Proves::Machine
                    | Proves::Feeds(_)
                    | Proves::Hypervisor(_)
                    | Proves::Storage(_)
                    | Proves::Network => &[Act::Off, Act::Read],
                };
                acts.iter().map(move |act| DryCall {
                    device: facts.name.clone(),
                    kind: facts.kind,
                    act: *act,
                    shown: slot.map(|slot| slot.device.preview(*act)).unwrap_or_default(),
                })
            });
            let ends = level.devices.iter().fold(Ends::default(), |ends, facts| ends.and(facts.proves.ends()));
            DryLevel {
                number: level.number,
                starts: level.starts.clone(),
                would_prove,
                why_not,
                ends,
                calls: calls.collect(),
            }
        });
        Ok(DryRun { target: plan.target.host.clone(), levels: levels.collect() })
    }
}
