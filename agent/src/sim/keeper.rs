//! The keeper of a simulated host: the production core, its driver played.

use crate::engine::{Attestation, KeeperOrder, KeeperPage};
use crate::heartbeat::KeeperState;
use crate::keeper::core::{Action, Core, Device, Facts, Head, Helpers, Params, Phase, RecordView, SliceSeen};
use quorum::id::{BootId, GroupName, HostEpoch, KeeperInstance};
use quorum::ledger::{Class, WatchdogAttestation};
use quorum::moment::Moment;
use quorum::timing::Timing;
use std::time::Duration;

/// What the keeper did in one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// It petted the watchdog.
    pub(super) petted: bool,
    /// Everything protected is to be killed.
    pub(super) kill: bool,
}

/// The keeper's process.
pub(super) struct SimKeeper {
    core: Core,
    boot: BootId,
    pub(super) instance: KeeperInstance,
    record: Option<KeeperOrder>,
    /// The groups of the record that was adopted last: those that an attestation names.
    armed: Vec<GroupName>,
    attested: Option<Attestation>,
    class: Class,
    worst: Duration,
    is_set_up: bool,
    is_frozen: bool,
    helpers: Helpers,
}

impl SimKeeper {
    pub(super) fn new(boot: BootId, instance: KeeperInstance, timing: &Timing, class: Class) -> Self {
        let params = Params {
            boot,
            instance,
            watchdog_worst: timing.watchdog_worst,
            delta_hw: timing.delta_hw,
            delta_io: timing.delta_io,
            lease_max: timing.lease * 4,
        };
        Self {
            core: Core::restarted(params, None, HostEpoch::default()),
            boot,
            instance,
            record: None,
            armed: Vec::new(),
            attested: None,
            class,
            worst: timing.watchdog_worst,
            is_set_up: false,
            is_frozen: false,
            helpers: Helpers::Ready,
        }
    }

    pub(super) fn write(&mut self, order: KeeperOrder) {
        self.record = Some(order);
    }

    /// One round of the driver's loop: acts until the core pets or withholds. `is_empty`: no protected process lives.
    pub(super) fn look(&mut self, read: impl Fn() -> Moment, mut is_empty: bool) -> Looked {
        let mut looked = Looked::default();
        for _ in 0..32 {
            let view = self.record.as_ref().map_or(RecordView::Absent, |order| {
                RecordView::Whole(Head {
                    era: order.era,
                    he: order.host_epoch,
                    boot: order.boot,
                    instance: order.instance,
                    expiry: order.expires,
                    sequence: order.sequence,
                })
            });
            let facts = Facts {
                slice: Some(SliceSeen { empty: is_empty, frozen: self.is_frozen, bare: is_empty }),
                helpers: self.helpers,
                device: if self.is_set_up { Device::Good } else { Device::Unset },
                may_close_late: false,
                pins_settled: self.record.as_ref().map_or(0, |order| order.sequence),
            };
            let before = self.core.sequence();
            let action = self.core.step(read(), view, &facts);
            if self.core.sequence() != before {
                self.armed = self.record.iter().flat_map(|order| order.armed.keys().cloned()).collect();
            }
            match action {
                Action::SetUp => self.is_set_up = true,
                Action::Freeze => self.is_frozen = true,
                Action::Kill => {
                    looked.kill = true;
                    is_empty = true;
                    self.helpers = Helpers::Done;
                }
                Action::Sweep => {}
                Action::Attest(he) => {
                    self.attested = Some(Attestation { boot: self.boot, host_epoch: he, groups: self.armed.clone() });
                }
                Action::Thaw(_) => {
                    self.is_frozen = false;
                    self.helpers = Helpers::Ready;
                }
                Action::Pet => {
                    looked.petted = true;
                    return looked;
                }
                Action::Withhold => return looked,
            }
        }
        looked
    }

    /// What the agent reads.
    pub(super) fn page(&self) -> KeeperPage {
        let state = match self.core.phase() {
            Phase::Armed(_) => KeeperState::Armed,
            Phase::Rest if self.core.retired() == HostEpoch::default() => KeeperState::Idle,
            Phase::Rest => KeeperState::Clear,
            Phase::Clearing(_) | Phase::Settling(_) | Phase::Thawing(..) => KeeperState::Clearing,
        };
        let retired = Some(self.core.retired()).filter(|he| *he != HostEpoch::default());
        KeeperPage {
            instance: self.instance,
            state,
            host_epoch: self.core.armed_epoch().or(retired),
            echoed: self.core.echoed(),
            written: self.record.as_ref().map_or(0, |order| order.sequence),
            attested: self.attested.clone(),
            watchdog: matches!(self.class, Class::A | Class::B).then(|| WatchdogAttestation {
                driver: "sim".into(),
                worst: self.worst,
                fire_tests: 5,
                conditions_hold: true,
            }),
            class: self.class,
            lab: false,
            because: format!("{:?}", self.core.reason()),
        }
    }
}
