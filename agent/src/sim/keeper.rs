//! The keeper of a simulated host: the production core, its driver played action by action.
//!
//! The driver can be stopped before any action that it takes, also between the check and the pet; see
//! [`Point`](super::Point).

use crate::engine::{Armed, Attestation, KeeperOrder, KeeperPage};
use crate::heartbeat::KeeperState;
use crate::keeper::core::{
    Action, Core, Device, Facts, Head, Helpers, Params, Phase, Reason, RecordView, Saved, SliceSeen,
};
use quorum::id::{BootId, GroupName, HostEpoch, KeeperInstance};
use quorum::ledger::{Class, WatchdogAttestation};
use quorum::moment::Moment;
use quorum::mutants;
use quorum::timing::Timing;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a keeper process is made from.
pub(super) struct KeeperStart<'a> {
    pub(super) boot: BootId,
    pub(super) instance: KeeperInstance,
    pub(super) timing: &'a Timing,
    pub(super) class: Class,
    /// The record and the latch that an earlier keeper of this boot left, and whether it had the slice frozen.
    pub(super) found: Option<(Option<KeeperOrder>, HostEpoch)>,
}

/// What the kernel shows of a host's slice.
pub(super) struct SliceSight {
    /// No protected process lives.
    pub(super) is_empty: bool,
    pub(super) is_frozen: bool,
    /// Groups that have processes in their pinned cgroups.
    pub(super) tied: BTreeSet<GroupName>,
}

/// What must have changed for the agent to be told.
type Told = (Phase, u64, Option<HostEpoch>, HostEpoch, Reason);

/// The keeper's process.
pub(super) struct SimKeeper {
    core: Core,
    boot: BootId,
    pub(super) instance: KeeperInstance,
    record: Option<KeeperOrder>,
    /// The record that was adopted last: its groups are those that an attestation names.
    adopted: Option<KeeperOrder>,
    attested: Option<Attestation>,
    class: Class,
    worst: Duration,
    is_set_up: bool,
    /// The device refuses pets.
    pub(super) is_device_broken: bool,
    helpers: Helpers,
    pins_settled: u64,
    /// Groups that were seen in their pinned cgroups at the last look.
    tied: BTreeSet<GroupName>,
    told: Option<Told>,
    /// Stopped until this real time.
    pub(super) paused_until: u64,
}

impl SimKeeper {
    pub(super) fn new(start: KeeperStart<'_>) -> Self {
        let KeeperStart { boot, instance, timing, class, found } = start;
        let params = Params {
            boot,
            instance,
            watchdog_worst: timing.watchdog_worst,
            delta_hw: timing.delta_hw,
            delta_io: timing.delta_io,
            lease_max: timing.lease * 4,
        };
        let (record, floor) = found.unwrap_or_default();
        let head = record.as_ref().map(head_of);
        Self {
            core: Core::restarted(params, head, floor),
            boot,
            instance,
            adopted: record.clone(),
            record,
            attested: None,
            class,
            worst: timing.watchdog_worst,
            is_set_up: false,
            is_device_broken: false,
            helpers: Helpers::Ready,
            pins_settled: 0,
            tied: BTreeSet::new(),
            told: None,
            paused_until: 0,
        }
    }

    /// One that goes on with a record in force, as after an upgrade.
    pub(super) fn armed(start: KeeperStart<'_>, order: KeeperOrder) -> Self {
        let mut keeper = Self::new(start);
        let saved = Saved {
            armed: Some(head_of(&order)),
            era: order.era,
            retired: HostEpoch::default(),
            sequence: order.sequence,
            echoed: order.sequence,
            attested: HostEpoch::default(),
            cause: Reason::None,
        };
        keeper.core = Core::resumed(keeper.core.params().clone(), &saved);
        keeper.pins_settled = order.sequence;
        keeper.is_set_up = true;
        keeper.adopted = Some(order.clone());
        keeper.record = Some(order);
        keeper
    }

    /// What a keeper that is started after this one finds.
    pub(super) fn left(&self) -> (Option<KeeperOrder>, HostEpoch) {
        (self.record.clone(), self.core.retired())
    }

    pub(super) fn write(&mut self, order: KeeperOrder) {
        self.record = Some(order);
    }

    /// The next action of the driver's loop.
    pub(super) fn decide(&mut self, now: Moment, seen: SliceSight) -> Action {
        let SliceSight { is_empty, is_frozen, tied } = seen;
        self.settle_pins(&tied);
        self.tied = tied;
        let view = self.record.as_ref().map_or(RecordView::Absent, |order| RecordView::Whole(head_of(order)));
        let device = match (self.is_device_broken, self.is_set_up) {
            (true, _) => Device::Failed,
            (false, true) => Device::Good,
            (false, false) => Device::Unset,
        };
        let facts = Facts {
            slice: Some(SliceSeen { empty: is_empty, frozen: is_frozen, bare: is_empty }),
            helpers: self.helpers,
            device,
            may_close_late: false,
            pins_settled: self.pins_settled,
        };
        let before = self.core.sequence();
        let action = self.core.step(now, view, &facts);
        if self.core.sequence() != before {
            self.adopted.clone_from(&self.record);
        }
        action
    }

    /// What of an action concerns the keeper's own state; freezing and killing is the world's business.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::SetUp => self.is_set_up = true,
            Action::Kill => self.helpers = Helpers::Done,
            Action::Attest(he) => {
                let armed = self.adopted.iter().flat_map(|order| &order.armed);
                let is_believed = |armed: &Armed| !armed.pinned && mutants::on("keeper.attests_unsettled");
                let is_gone = |(group, armed): &(&GroupName, &Armed)| is_believed(armed) || !self.tied.contains(*group);
                let groups = armed.filter(is_gone).map(|(group, _)| group.clone()).collect();
                self.attested = Some(Attestation { boot: self.boot, host_epoch: he, groups });
            }
            Action::Thaw(_) => self.helpers = Helpers::Ready,
            Action::Freeze | Action::Sweep | Action::Pet | Action::Withhold => {}
        }
    }

    /// A group that is armed without a pin must have left its pinned cgroup before its sequence is echoed.
    fn settle_pins(&mut self, tied: &BTreeSet<GroupName>) {
        let Some(order) = &self.record else { return };
        let is_left = |(group, armed): (&GroupName, &Armed)| !armed.pinned && tied.contains(group);
        if !order.armed.iter().any(is_left) {
            self.pins_settled = order.sequence;
        }
    }

    /// The host epoch that is armed.
    pub(super) fn armed_epoch(&self) -> Option<HostEpoch> {
        self.core.armed_epoch()
    }

    /// When the adopted lease ends, on the host's clocks; `None` while nothing is armed.
    pub(super) fn expiry(&self) -> Option<Moment> {
        self.core.armed_epoch().and(self.adopted.as_ref()).map(|order| order.expires)
    }

    /// When the lease of the record that was adopted last ends, whatever became of it.
    pub(super) fn last_expiry(&self) -> Option<Moment> {
        self.adopted.as_ref().map(|order| order.expires)
    }

    /// Whether something changed since this was asked last that the agent must be told.
    pub(super) fn has_news(&mut self) -> bool {
        let core = &self.core;
        let now = (core.phase(), core.echoed(), core.attested(), core.retired(), core.reason());
        // A renewed record changes the head in the phase; it is told as an echo.
        let is_news = self.told.as_ref() != Some(&now);
        self.told = Some(now);
        is_news
    }

    /// Where it stands.
    pub(super) fn state(&self) -> KeeperState {
        match self.core.phase() {
            Phase::Armed(_) => KeeperState::Armed,
            Phase::Rest if self.core.retired() == HostEpoch::default() => KeeperState::Idle,
            Phase::Rest => KeeperState::Clear,
            Phase::Clearing(_) | Phase::Settling(_) | Phase::Thawing(..) => KeeperState::Clearing,
        }
    }

    /// Why it is where it is.
    pub(super) fn reason(&self) -> Reason {
        self.core.reason()
    }

    /// What the agent reads.
    pub(super) fn page(&self) -> KeeperPage {
        let retired = Some(self.core.retired()).filter(|he| *he != HostEpoch::default());
        KeeperPage {
            instance: self.instance,
            state: self.state(),
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

fn head_of(order: &KeeperOrder) -> Head {
    Head {
        era: order.era,
        he: order.host_epoch,
        boot: order.boot,
        instance: order.instance,
        expiry: order.expires,
        sequence: order.sequence,
    }
}
