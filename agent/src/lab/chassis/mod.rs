//! The chassis: plays the hardware of one host in the lab.
//!
//! It owns the host's whole process tree (a pid namespace of its own, inside a cgroup of its own), has a watchdog
//! that kills the tree, a power button, and a clock of its own lateness. It runs with real-time priority and outside
//! the tree, so that nothing of the host can hold it up.
//!
//! ```text
//! chassis ── clone ──► init (pid 1 of the host) ──► units: holder, keeper, agent, …
//!    │                        ▲ start/stop lines on its standard input
//!    ├── dog.sock   the watchdog device: a connected socket is the open device (`keeper::device::lab`)
//!    ├── --control  the power button: lines in, JSON out (`panel`)
//!    └── --log      what happened, with CLOCK_BOOTTIME
//! ```
//!
//! Units find the watchdog in `ANTIPODE_LAB_WATCHDOG`, in the form that `antipode keeper --watchdog` takes.
//!
//! Power on means: a fresh boot id, empty volatile directories, init started. Power off means: the pid namespace and
//! the cgroup are killed and *seen* empty. If the chassis dies, its host loses power.
//!
//! A chassis that was late by more than the margin of W says `invalid: host stalled N ms` for ever: a run on it
//! proves nothing, in either direction.

mod args;
mod boot;
mod dog;
mod host;
mod init;
mod lateness;
mod log;
mod panel;
mod run;

/// The watchdog's socket in the chassis' directory.
pub(crate) const DOG_SOCKET: &str = "dog.sock";

pub use args::ChassisArgs;
pub use boot::{Boot, BootError, Restart, Unit};
pub use host::HostError;
pub use panel::{Panel, PanelError};
pub use run::{ChassisError, run};
