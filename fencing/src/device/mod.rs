//! Device kinds: what talks to real things. One file a kind; [`KINDS`] lists them all, and being listed there is what
//! puts a kind under the contract suite.
//!
//! # The contract of a kind
//! 1. **`read` observes.** It says what the device said in *this* call about the machine's state, and whose machine it is.
//!    It changes nothing. Whatever isn't plainly understood is a [`Trouble`], never a guess; there is no "unknown" to return.
//! 2. **`off` asks.** It asks the device to make the target harmless, by force and at once: never a graceful shutdown,
//!    never a cycle or reset, never anything that ends in "on". `Ok` means that the request was taken. It is
//!    idempotent: asked again, or when the thing is off already, it does no harm (a refusal is fine: the state is read).
//! 3. **Last thing before the irreversible step, `off` calls [`Call::check`]** and gives up if that refuses: a late call must
//!    not hit a host that was admitted again. Everything slow (connecting, logging in) comes before it.
//! 4. **Time.** Both end by [`Call::leash`]'s limit. Dropping the future ends everything it started (processes,
//!    connections). When the leash's stop is pulled they end within a second or two, cleanly where that matters.
//! 5. **Secrets** are read by reference for each call, never kept, never put into an argument, and everything the device
//!    says is masked before it becomes part of a `Trouble`.
//! 6. **Identity** belongs to the reading: taken in the same call, from the thing that is switched. A kind that can't
//!    report it says so ([`Binding::Wired`](crate::facts::Binding)) and a person attests the wiring.
//! 7. **Evidence.** What a reading proves is said by the facts' [`Proves`](crate::facts::Proves), once, when the device is
//!    configured; a reading of another sort is refused by the pure part.
//!
//! # Room for more
//! A kind for vSphere will fit here: `off` is several ordered, idempotent calls (agent VM off or its account disabled and its
//! sessions ended; no power-on task pending; group VM off; unregistered or its disks detached), each after its own `check`;
//! `read` returns [`Power::Off`](crate::reading::Power) only if *all* of that holds in one and the same reading, with HA and
//! autostart seen off, and `Power::Between` naming what is missing otherwise; `proves` is
//! [`Hypervisor`](crate::facts::Proves::Hypervisor), so its scope is one group, and the identity is the VM's instance UUID
//! together with the ESX host's. Nothing in the trait has to change for it.

mod blocking;
mod command;
mod fence_agent;
pub(crate) mod fuzz;
mod ipmi;
mod libvirt;
pub mod redfish;
pub mod reservation;
mod sbd;
pub mod waits;

pub use fence_agent::metadata;

use crate::facts::{DeviceFacts, Rhythm};
use crate::key::VolumeClaim;
use crate::name::VolumeName;
use crate::params::{Key, Params};
use crate::process::Leash;
use crate::reading::Observed;
use crate::session::Act;
use crate::target::ReportedIdentity;
use crate::topology::Problem;
use crate::trouble::Trouble;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use toml::{Table, Value};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Asked last thing before an irreversible step. The error says who refused and why.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What a device sees of the order behind a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Behind {
    /// The host that is to be fenced; empty for a reading on schedule.
    pub target: String,
    /// Its host epoch.
    pub he: u64,
    /// Era, term and index of the decision.
    pub stamp: crate::request::Stamp,
}

/// One call to a device.
#[derive(Clone)]
pub struct Call {
    /// Until when it may take, and who may end it earlier.
    pub leash: Leash,
    /// The order behind it.
    pub behind: Behind,
    /// Who claims which volume, whom that excludes. Empty for a reading on schedule.
    pub claims: BTreeMap<VolumeName, VolumeClaim>,
    check: Check,
}

impl Call {
    /// A reading on schedule, with no order behind it. Switching off through it is refused.
    pub fn reading(leash: Leash) -> Self {
        let check: Check = Arc::new(|| Err("there is no fence order behind this call".to_owned()));
        Self { leash, behind: Behind::default(), claims: BTreeMap::new(), check }
    }

    /// A call for an order.
    pub fn ordered(leash: Leash, behind: Behind, claims: BTreeMap<VolumeName, VolumeClaim>, check: Check) -> Self {
        Self { leash, behind, claims, check }
    }

    /// Whether the irreversible step may be taken now. To be asked last thing before it.
    ///
    /// # Errors
    /// [`Trouble::Overtaken`]: nothing may be sent any more.
    pub fn check(&self) -> Result<(), Trouble> {
        if *self.leash.stop.borrow() {
            return Err(Trouble::Overtaken { because: "the call was stopped".to_owned() });
        }
        if tokio::time::Instant::now() >= self.leash.limit {
            return Err(Trouble::Overtaken { because: "its time was over before anything was sent".to_owned() });
        }
        (self.check)().map_err(|because| Trouble::Overtaken { because })
    }
}

/// What a device shows of its target, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The state.
    pub observed: Observed,
    /// Whose machine it is.
    pub identity: ReportedIdentity,
    /// The device says that it is a laboratory's stand-in.
    pub lab: bool,
}

impl Sight {
    /// A sight of `observed` on the machine `identity`.
    pub fn new(observed: Observed, identity: ReportedIdentity) -> Self {
        Self { observed, identity, lab: false }
    }
}

/// A configured device. See the module's contract.
pub trait Device: Send + Sync + 'static {
    /// What the pure part decides by.
    fn facts(&self) -> &DeviceFacts;

    /// Says in which state the target is.
    fn read<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>>;

    /// Asks the device to make the target harmless.
    fn off<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>>;

    /// What would be run or sent, for a dry run; secrets masked. Nothing happens.
    fn preview(&self, act: Act) -> Vec<String>;

    /// Returns when nothing that was begun lingers where it can't be ended (a command that hangs in the kernel). A task
    /// isn't finished before that.
    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Builds a device from its table.
pub type Build = fn(Params) -> Result<Arc<dyn Device>, Vec<Problem>>;

/// A kind of device.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name in `kind = "..."`.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Its own keys, beside the common ones.
    pub keys: &'static [Key],
    /// Builds one.
    pub build: Build,
}

/// All kinds. Each has its page in `fencing/docs/` and its place in the contract suite.
pub const KINDS: [Kind; 10] = [
    fence_agent::KIND,
    ipmi::KIND,
    redfish::KIND,
    libvirt::KIND,
    reservation::KIND,
    sbd::KIND,
    command::KIND,
    waits::SELF,
    waits::WATCHDOG,
    waits::OPERATOR,
];

/// Builds the device that `table` describes.
///
/// # Errors
/// Every problem in the table.
pub fn build(table: Table) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let name = table.get("name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
    let wanted = table.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(kind) = KINDS.iter().find(|kind| kind.name == wanted) else {
        let all = || KINDS.iter().map(|kind| kind.name);
        let near = crate::topology::nearest(&wanted, all()).map(|near| format!("did you mean {near:?}?"));
        let remedy = near.unwrap_or_else(|| format!("use one of: {}", all().collect::<Vec<_>>().join(", ")));
        return Err(vec![Problem::new(format!("device {name}: kind"), format!("there is no kind {wanted:?}"), remedy)]);
    };
    (kind.build)(Params::new(table))
}

/// A rhythm in milliseconds: read limit, off limit, poll, settle, off again.
pub(crate) const fn rhythm(read_limit: u64, off_limit: u64, poll: u64, settle: u64, off_again: u64) -> Rhythm {
    Rhythm {
        read_limit: Duration::from_millis(read_limit),
        off_limit: Duration::from_millis(off_limit),
        poll: Duration::from_millis(poll),
        settle: Duration::from_millis(settle),
        off_again: Duration::from_millis(off_again),
    }
}

/// The least settle time of a device that reads power (protocol §6).
pub(crate) const SETTLE_MIN: Duration = Duration::from_secs(1);
