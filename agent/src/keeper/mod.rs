//! The keeper: a tiny separate process with the watchdog and the kill switch (protocol §2).
//!
//! ```text
//!              start
//!                │ (treats what it finds as retired)
//!                ▼
//!            ┌─ Clearing: freeze, kill, verify; no pet ◄──────────────┐
//!  verified  │      ▲                                                 │ latch he, then freeze
//!            ▼      │ not verified any more                           │
//!        Settling: δ_io; pets while verified                          │
//!            │ attest                                                 │
//!            ▼                                                        │
//!          Rest: frozen and empty; pets while verified                │
//!            │ a whole record with a larger he, E_h far enough        │
//!            ▼                                                        │
//!        Thawing ──► Armed: pets while n + 2·W + δ_hw ≤ E_h ──────────┘
//!                                                     first refused pet
//! ```
//!
//! The agent talks to it through two files in memory only: the record (agent → keeper) and the page (keeper →
//! agent), see [`KeeperLink`]. Everything able to bring a group up runs inside the protected slice, see [`slice`].
//!
//! Code map: `core` decides · `driver` acts · `slots`, `record`, `page`, `armed` are what is shared · `device` resets
//! · `slice` kills · `helper` runs programs · `holder` outlives · `handover` upgrades · `fire` commissions.

pub mod args;
pub mod armed;
pub mod core;
pub mod device;
pub mod driver;
pub mod fire;
pub(crate) mod fuzz;
pub mod handover;
pub mod helper;
pub mod holder;
mod layout;
pub mod link;
pub mod packet;
pub mod page;
pub mod posture;
pub mod record;
pub mod run;
pub mod show;
pub mod signals;
pub mod slice;
pub mod slots;

pub use args::KeeperArgs;
pub use armed::{ArmedGroup, ArmedSet, GROUPS_MAX};
pub use holder::HolderArgs;
pub use link::{KeeperLink, LinkError, PageReader};
pub use page::{Attestation, Page, PageState, Posture};
pub use record::Record;
pub use run::{KeeperError, run};
pub use slice::{GroupCgroup, SliceRoot};
