//! The agent's end of the keeper: writes records, watches the page.

use crate::config::KeeperConfig;
use crate::driver::clock;
use crate::engine::{self, Armed, KeeperOrder, KeeperPage};
use crate::heartbeat::KeeperState;
use crate::keeper::core::Head;
use crate::keeper::device::{ClassCeiling, DeviceKind};
use crate::keeper::{ArmedGroup, ArmedSet, KeeperLink, Page, PageState, Record};
use quorum::id::GroupName;
use quorum::ledger::{Class, WatchdogAttestation};
use quorum::moment::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the page is looked at at least, while something is awaited of the keeper. It costs no system call.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A page older than this was written by a keeper that doesn't run any more.
const PAGE_FRESH: Duration = Duration::from_millis(500);

/// The link, opened again whenever there is none.
pub struct KeeperEnd {
    config: KeeperConfig,
    link: Option<KeeperLink>,
    /// When the link was last tried, and which version of the page was last read.
    tried: Option<Moment>,
    generation: u64,
    last: Option<KeeperPage>,
    /// The record that was the first with the armed set in force, and that set.
    arming: (u64, BTreeMap<GroupName, Armed>),
}

impl KeeperEnd {
    /// Not connected yet.
    pub fn new(config: KeeperConfig) -> Self {
        let arming = (0, BTreeMap::new());
        Self { config, link: None, tried: None, generation: 0, last: None, arming }
    }

    /// Reads the page and returns it if something that matters changed.
    pub fn look(&mut self) -> Option<KeeperPage> {
        if self.link.is_none() {
            self.open();
        }
        let link = self.link.as_mut()?;
        let generation = link.generation();
        if generation == self.generation {
            return None;
        }
        let page = link.page().ok()?;
        self.generation = generation;
        let written = link.last().ok().flatten().map_or(0, |record| record.head.sequence);
        let now = clock::now();
        if now.waited_since(page.written) > PAGE_FRESH {
            return None;
        }
        let page = translate(&page, written, self.config.fire_tests);
        let is_news =
            self.last.as_ref().is_none_or(|last| KeeperPage { written: last.written, ..page.clone() } != *last);
        is_news.then(|| {
            self.last = Some(page.clone());
            page
        })
    }

    fn open(&mut self) {
        let now = clock::now();
        if self.tried.is_none_or(|at| now.waited_since(at) >= LOOK_EVERY) {
            self.tried = Some(now);
            self.link = KeeperLink::open(&self.config.dir).ok();
        }
    }

    /// Whether the page is soon to say something that is waited for: that an armed set is in force, or that nothing of a
    /// retired host epoch is left.
    pub fn is_awaited(&self) -> bool {
        self.last.as_ref().is_some_and(|page| page.state == KeeperState::Clearing || page.echoed < self.arming.0)
    }

    /// Writes a record. Without a keeper nothing is written, and nothing may start.
    pub fn write(&mut self, order: &KeeperOrder) {
        if self.arming.1 != order.armed {
            self.arming = (order.sequence, order.armed.clone());
        }
        let Some(link) = &mut self.link else { return };
        let mut armed = ArmedSet::default();
        for (group, entry) in &order.armed {
            if armed.push(ArmedGroup::new(group, entry.epoch, entry.pinned)).is_err() {
                tracing::error!(%group, "the keeper's table is full: this group can't run here");
            }
        }
        let head = Head {
            era: order.era,
            he: order.host_epoch,
            boot: order.boot,
            instance: order.instance,
            expiry: order.expires,
            sequence: order.sequence,
        };
        link.write(&Record { head, armed });
    }
}

fn translate(page: &Page, written: u64, fire_tests: u32) -> KeeperPage {
    let state = match page.state {
        PageState::Idle => KeeperState::Idle,
        PageState::Armed => KeeperState::Armed,
        PageState::Starting | PageState::Retired => KeeperState::Clearing,
        PageState::Clean => KeeperState::Clear,
        PageState::Stopped | PageState::Refused => KeeperState::Absent,
    };
    let attested = page.attestation.as_ref().map(|attested| engine::Attestation {
        boot: attested.boot,
        host_epoch: attested.he,
        groups: attested.gone.iter().filter_map(|group| GroupName::new(group.name()).ok()).collect(),
    });
    let class = class(page, fire_tests);
    KeeperPage {
        instance: page.instance,
        state,
        host_epoch: page.armed.or(Some(page.retired).filter(|he| he.0 != 0)),
        echoed: page.echoed,
        written,
        attested,
        class,
        lab: page.device.kind == DeviceKind::Lab,
        watchdog: matches!(class, Class::A | Class::B).then(|| WatchdogAttestation {
            driver: page.device.driver().to_owned(),
            worst: page.watchdog_worst,
            fire_tests,
            conditions_hold: page.device.nowayout && page.device.survives_reboot && page.device.sleep_masked,
        }),
        because: format!("{:?}", page.reason),
    }
}

/// A watchdog that was never seen to fire is no ground for anything.
fn class(page: &Page, fire_tests: u32) -> Class {
    match page.device.ceiling() {
        ClassCeiling::A if fire_tests > 0 => Class::A,
        ClassCeiling::B if fire_tests > 0 => Class::B,
        ClassCeiling::C => Class::C,
        ClassCeiling::A | ClassCeiling::B | ClassCeiling::D => Class::D,
    }
}
