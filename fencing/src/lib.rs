//! Make sure that it is dead, and say how we know.
//!
//! # Use
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fencing::{Executor, FenceOrder, FencingConfig, Report, Verdict, name::HostName, request::Stamp};
//! use std::{path::Path, sync::Arc, time::Duration};
//!
//! let config = FencingConfig::parse("...").map_err(|problems| format!("{problems:?}"))?; // or from the cluster spec's tables
//! let handle = Executor::start(&config, Path::new("/var/lib/antipode/fencing"))?;
//!
//! // The ledger committed a fence task: carry it out. The guard is asked last thing before each irreversible step.
//! let order = FenceOrder::new(HostName::new("tk-p1")?, 7, Stamp { era: 1, term: 3, index: 88 }, Duration::from_secs(60));
//! let mut reports = handle.run(order, Arc::new(|_order| Ok(()))).await?;
//! while let Some(report) = reports.recv().await {
//!     match report {
//!         Report::Concluded { verdict: Verdict::Proven { evidence }, .. } => println!("{}", evidence.kind()), // commit it
//!         Report::Concluded { verdict: Verdict::Unproven(why), .. } => println!("{why}"),
//!         Report::Noted { .. } => {}
//!         Report::Finished { .. } => break, // nothing of this task can reach a device any more
//!     }
//! }
//!
//! handle.probe_all().await; // `fence test`: reads every device, switches nothing
//! handle.status(); // `fence status`, metrics, doctor's findings
//! # Ok(()) }
//! ```
//! Before a host is admitted again: [`Handle::cancel`] (returns when its tasks are finished), then [`Handle::admitted`].
//! When the ledger gets evidence from elsewhere (lease, keeper, person): [`Handle::proven_elsewhere`]. For executors at
//! several sites: [`relay`].
//!
//! # Parts
//! The pure part decides: [`topology`] and [`plan`] say what an order will do, a [`session`] does it, [`evidence`] is the
//! only place where proof is made, [`verdict`] tells the end, [`gate`] keeps late orders out, [`findings`] and [`silence`]
//! tell what is weak. It does no I/O and reads no clock. The driver acts: [`executor`] with its [`journal`], and the
//! kinds in [`device`], each with a page in `docs/`.
//!
//! **Invariant.** Evidence is made of two readings of a device that speaks for the target, and of nothing else. A return
//! code, a timeout, a refused connection, a silent site have no way to become evidence.
//!
//! This crate knows no other crate of the workspace: the agent translates a verdict into the ledger's word for it.

pub mod config;
pub mod device;
pub mod evidence;
pub mod executor;
pub mod facts;
pub mod findings;
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod journal;
pub mod key;
pub mod moment;
pub mod mutants;
pub mod name;
pub mod params;
pub mod plan;
pub mod process;
pub mod reading;
pub mod relay;
pub mod request;
pub mod secret;
pub mod session;
pub mod silence;
pub mod target;
pub mod topology;
pub mod trouble;
pub mod verdict;

pub use config::{FencingConfig, HostFencing};
pub use evidence::{Evidence, EvidenceKind, Scope};
pub use executor::{Executor, Guard, Handle, Refused, Report};
pub use request::FenceOrder;
pub use verdict::Verdict;
