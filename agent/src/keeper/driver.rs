//! The keeper's hands: observes, reads the clocks, lets the core decide, does what it decided.
//!
//! Contract: [`Keeper::turn`] neither allocates, nor takes a lock, nor touches a disk, once the watchdog is set up
//! (`tests/keeper.rs` counts). What was observed is observed before the clocks are read; a pet is the first thing
//! after the decision. The page is written after what it says was done.
//!
//! Not here: what is decided (`core`), starting and ending (`run`), upgrading (`handover`).

use super::armed::{ArmedGroup, ArmedSet};
use super::core::{Action, Core, Device, Facts, Phase, Reason, RecordView};
use super::device::{DeviceFacts, Opened, Watchdog, WatchdogSpec};
use super::helper::Helpers;
use super::holder::HolderLink;
use super::page::{Attestation, PAGE_BYTES_MAX, Page, PageState, Posture};
use super::record::decode_into;
use super::slice::Slice;
use super::slots::{SlotError, SlotReader, SlotWriter};
use crate::driver::clock;
use quorum::id::HostEpoch;
use quorum::moment::Moment;
use quorum::mutants;
use std::time::Duration;

/// While something is being ended the kernel is asked this often: the sooner it is seen gone, the sooner it is proof.
const CHASE: Duration = Duration::from_millis(2);

/// A release takes a handful of deeds without a wait between them; more in a row means that one doesn't take, and a
/// real-time process must not spin on it.
const HURRIED_MAX: u32 = 8;

/// What a keeper works with; made by `run`.
#[derive(Debug)]
pub struct Parts {
    /// The decisions.
    pub core: Core,
    /// The slice.
    pub slice: Slice,
    /// The helpers, ready.
    pub helpers: Helpers,
    /// The way to the holder.
    pub holder: HolderLink,
    /// Which watchdog to open.
    pub spec: WatchdogSpec,
    /// What to set it to.
    pub timeout: Duration,
    /// How often to pet it.
    pub period: Duration,
    /// How often to look at the record.
    pub look: Duration,
    /// The agent's record.
    pub record: SlotReader,
    /// The keeper's page.
    pub page: SlotWriter,
    /// What protects this process.
    pub posture: Posture,
}

/// A running keeper.
#[derive(Debug)]
pub struct Keeper {
    pub(super) core: Core,
    slice: Slice,
    pub(super) helpers: Helpers,
    holder: HolderLink,
    spec: WatchdogSpec,
    timeout: Duration,
    period: Duration,
    look: Duration,
    record: SlotReader,
    writer: SlotWriter,
    page: Page,
    buffer: Box<[u8]>,
    pub(super) dog: Option<Box<dyn Watchdog>>,
    device: Device,
    /// The record that was read last, and its armed set.
    view: RecordView,
    generation: u64,
    incoming: ArmedSet,
    /// The armed set of the record that was adopted last.
    pub(super) adopted: ArmedSet,
    pins_settled: u64,
    released_at: Option<Moment>,
    wake_at: Option<Moment>,
    fault: Option<super::device::DeviceError>,
    /// Where the first attestation is written, so that it needs no memory then.
    spare: Option<Attestation>,
    /// Turns in a row that asked for no wait.
    hurried: u32,
}

impl Keeper {
    /// A keeper that has not looked yet. `found` is the armed set of the record that the core was started with.
    pub fn new(parts: Parts, found: ArmedSet) -> Self {
        let params = parts.core.params();
        let page = Page {
            instance: params.instance,
            boot: params.boot,
            pid: std::process::id(),
            watchdog_worst: params.watchdog_worst,
            delta_hw: params.delta_hw,
            posture: parts.posture,
            ..Page::default()
        };
        let mut adopted = ArmedSet::reserved();
        adopted.copy_from(&found);
        Self {
            device: if parts.spec == WatchdogSpec::None { Device::Missing } else { Device::Unset },
            core: parts.core,
            slice: parts.slice,
            helpers: parts.helpers,
            holder: parts.holder,
            spec: parts.spec,
            timeout: parts.timeout,
            period: parts.period,
            look: parts.look,
            record: parts.record,
            writer: parts.page,
            page,
            buffer: vec![0; PAGE_BYTES_MAX].into_boxed_slice(),
            dog: None,
            view: RecordView::Absent,
            generation: 0,
            incoming: ArmedSet::reserved(),
            adopted,
            pins_settled: 0,
            released_at: None,
            wake_at: None,
            fault: None,
            spare: Some(Attestation { gone: ArmedSet::reserved(), ..Attestation::default() }),
            hurried: 0,
        }
    }

    /// One look, one decision, one deed. Gives how long to wait before the next.
    pub fn turn(&mut self) -> Duration {
        let before = self.core.sequence();
        let facts = self.observe();
        let now = clock::now();
        let action = self.core.step(now, self.view, &facts);
        if action == Action::Pet {
            self.pet(now);
        }
        if self.core.sequence() != before {
            self.adopted.copy_from(&self.incoming);
        }
        self.note_lateness(now);
        let wait = self.perform(action, now);
        self.hurried = if wait.is_zero() { self.hurried + 1 } else { 0 };
        let wait = if self.hurried > HURRIED_MAX { CHASE } else { wait };
        self.publish(now, &facts);
        self.wake_at = Some(now.plus(wait));
        wait
    }

    fn observe(&mut self) -> Facts {
        self.read_record();
        self.settle_pins();
        let held = match &self.dog {
            Some(dog) => self.holder.has(dog.descriptor(), self.page.written.boot_ns),
            None => false,
        };
        self.page.posture.held = held;
        Facts {
            slice: self.slice.see(),
            helpers: self.helpers.poll(),
            device: self.device,
            may_close_late: self.device != Device::Missing && !held,
            pins_settled: self.pins_settled,
        }
    }

    fn read_record(&mut self) {
        let generation = self.record.generation();
        if generation == self.generation && self.view != RecordView::Torn {
            return;
        }
        self.generation = generation;
        self.view = match self.record.read() {
            Ok(bytes) => decode_into(bytes, &mut self.incoming).map_or(RecordView::Torn, RecordView::Whole),
            Err(SlotError::Empty) => RecordView::Absent,
            Err(SlotError::Torn) => RecordView::Torn,
        };
    }

    /// A group that is armed without a pin must have left its pinned cgroup before its sequence is echoed.
    fn settle_pins(&mut self) {
        let RecordView::Whole(head) = self.view else { return };
        if head.sequence == self.pins_settled {
            return;
        }
        let slice = &self.slice;
        let left = |group: &str| slice.is_pinned_populated(group) != Some(false);
        // Most hosts have no pin at all: one look at all pinned cgroups together settles it.
        let settled = !left(".") || self.incoming.iter().filter(|group| !group.pinned).all(|group| !left(group.name()));
        if settled {
            self.pins_settled = head.sequence;
        }
    }

    fn pet(&mut self, now: Moment) {
        let due = now.held_since(self.page.last_pet) >= self.period || self.page.last_pet == Moment::default();
        let Some(dog) = self.dog.as_mut().filter(|_| due) else { return };
        match dog.pet() {
            Ok(()) => self.page.last_pet = now,
            Err(_) => self.device = Device::Failed,
        }
    }

    fn perform(&mut self, action: Action, now: Moment) -> Duration {
        // A deed that fails shows in what is observed next, and is ordered again.
        match action {
            Action::Pet => return self.look.min(self.period),
            Action::Withhold => return CHASE,
            Action::SetUp => return self.set_up(now),
            Action::Freeze => self.slice.freeze().ok(),
            Action::Kill => {
                self.released_at = self.released_at.or(Some(now));
                self.helpers.trigger(self.core.retired());
                self.slice.kill().ok()
            }
            Action::Sweep => self.slice.sweep().ok(),
            Action::Attest(he) => {
                self.attest(he, now);
                Some(())
            }
            Action::Thaw(he) => {
                self.helpers.rearm();
                self.slice.thaw_for(he).ok()
            }
        };
        Duration::ZERO
    }

    fn attest(&mut self, he: HostEpoch, now: Moment) {
        let mut attestation = self.page.attestation.take().or_else(|| self.spare.take()).unwrap_or_default();
        (attestation.boot, attestation.he, attestation.at) = (self.core.params().boot, he, now);
        attestation.gone.copy_from(&self.adopted);
        let slice = &self.slice;
        // A group lives on while something is in its pinned cgroup, whatever the last record says of it: it may have
        // been on its way out. One that the kernel doesn't tell about may live.
        let has_nobody = |group: &str| slice.is_pinned_populated(group) == Some(false);
        if !has_nobody(".") {
            let is_believed = |group: &ArmedGroup| !group.pinned && mutants::on("keeper.attests_unsettled");
            attestation.gone.retain(|group| is_believed(group) || has_nobody(group.name()));
        }
        self.page.attestation = Some(attestation);
    }

    /// Takes the device from the holder, or opens it. Not part of the quiet life: it allocates, and may wait shortly.
    fn set_up(&mut self, now: Moment) -> Duration {
        let opened = match self.holder.take_over() {
            Some(kept) => Ok(self.spec.adopt(kept, self.timeout)),
            None => self.spec.open(self.timeout),
        };
        match opened {
            Ok(Some(opened)) => {
                self.resume_device(opened);
                self.pet(now);
            }
            Ok(None) => self.device = Device::Missing,
            Err(error) => {
                self.fault = Some(error);
                return self.period;
            }
        }
        Duration::ZERO
    }

    /// Takes over the device that the program before this one had: no pet but by the inequality.
    pub(super) fn resume_device(&mut self, Opened { dog, fault }: Opened) {
        self.page.device = dog.facts();
        self.device = if fault.is_some() { Device::Failed } else { Device::Good };
        self.fault = fault;
        self.dog = Some(dog);
    }

    fn note_lateness(&mut self, now: Moment) {
        if let Some(wake_at) = self.wake_at {
            self.page.late_max = self.page.late_max.max(now.held_since(wake_at));
        }
    }

    fn publish(&mut self, now: Moment, facts: &Facts) {
        let page = &mut self.page;
        let was = (page.state, page.reason, page.echoed, page.retired);
        page.state = state(&self.core);
        page.reason = self.core.reason();
        page.cause = self.core.cause();
        page.armed = self.core.armed_epoch();
        page.retired = self.core.retired();
        page.echoed = self.core.echoed();
        page.spans = self.core.spans(facts) as u8;
        if let (Some(begun), super::core::Helpers::Done) = (self.released_at, facts.helpers) {
            page.helpers_took = now.held_since(begun);
            self.released_at = None;
        }
        let is = (page.state, page.reason, page.echoed, page.retired);
        let attested = page.attestation.as_ref().is_some_and(|attestation| attestation.at == now);
        if is != was || attested || page.last_pet == now || now.held_since(page.written) >= self.period {
            self.write_page(now);
        }
    }

    fn write_page(&mut self, now: Moment) {
        self.page.written = now;
        let len = self.page.encode(&mut self.buffer);
        let len = len.expect("a table of at most GROUPS_MAX groups fits the largest page");
        self.writer.write(&self.buffer[..len]);
    }

    /// What an order could not be followed for, to be shown in the page.
    pub(super) fn refuse_order(&mut self, because: Reason) {
        self.page.order = because;
        self.write_page(clock::now());
    }

    /// Why the watchdog could not be set up, told once.
    pub(super) fn take_fault(&mut self) -> Option<super::device::DeviceError> {
        self.fault.take()
    }

    /// Ends in an orderly way if that is safe: nothing armed, all attested, the watchdog disarmed.
    pub(super) fn stop(&mut self, allow_disarm: bool) -> Result<(), Reason> {
        if !self.core.may_stop() {
            return Err(Reason::StopWhileArmed);
        }
        if let Some(dog) = &mut self.dog {
            if !allow_disarm || dog.disarm().is_err() {
                return Err(Reason::StopWouldReset);
            }
            self.holder.drop_device();
        }
        self.page.state = PageState::Stopped;
        self.page.order = Reason::None;
        self.write_page(clock::now());
        Ok(())
    }

    /// What was verified about the watchdog.
    pub fn device_facts(&self) -> DeviceFacts {
        self.page.device
    }

    /// The page as it was written last.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Puts back what an earlier program attested: it stays true, and the agent may not have read it yet.
    pub(super) fn keep_attestation(&mut self, attestation: Option<Attestation>, last_pet: Moment) {
        self.page.last_pet = last_pet;
        self.page.attestation = attestation.map(|kept| {
            let mut gone = ArmedSet::reserved();
            gone.copy_from(&kept.gone);
            Attestation { gone, ..kept }
        });
    }
}

fn state(core: &Core) -> PageState {
    let seen = core.retired() != HostEpoch::default();
    match core.phase() {
        Phase::Armed(_) => PageState::Armed,
        Phase::Clearing(_) | Phase::Settling(_) if seen => PageState::Retired,
        Phase::Clearing(_) | Phase::Settling(_) => PageState::Starting,
        Phase::Rest | Phase::Thawing(..) if seen => PageState::Clean,
        Phase::Rest | Phase::Thawing(..) => PageState::Idle,
    }
}
