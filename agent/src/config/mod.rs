//! The two files: `agent.toml` (who am I) and the cluster spec (what is protected), parsed into types that can't be
//! wrong.
//!
//! Contract: every problem of a file is reported at once, each with file, line, key and remedy; nothing is taken
//! from a file with a problem. Kind-specific keys are kept as a table and checked by the kind.
//!
//! Not here: the relations between time spans (`quorum::timing`), what the ledger may accept (`quorum::ledger`).

mod agent_file;
pub mod changes;
mod check;
mod convert;
mod fence;
mod group;
mod nearest;
mod reader;
mod spec_file;

pub use agent_file::{AgentConfig, KeeperConfig, NotifyConfig, PeerConfig, TlsFiles, VoterConfig};
pub use check::{Checked, check_spec};
pub use convert::{ledger_spec, timing_of};
pub use fence::{fencing_config, switches_within};
pub use group::{Address, Failback, FailbackPolicy, GroupConfig, Place, Probe, Tier, VolumeConfig};
pub use reader::{Problem, Problems, Reader};
pub use spec_file::{ClusterConfig, ClusterSpec, DeclarePolicy, HostConfig, SiteConfig, TimingOverrides};
