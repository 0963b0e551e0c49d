//! The status document: what `antipode status` shows, as seen by this agent at its log index.
//!
//! `document` what it consists of · `lines` versions, quorum, places and groups · `plans` · `attention` what a person should
//! look at.

mod attention;
mod document;
mod lines;
mod plans;

pub use document::{
    API_VERSION, AttentionLine, DataLine, FreezeLine, GateLine, GatesLine, GroupLine, HostLine, PinLine, PlanLine,
    PossibleLine, QuorumLine, SiteLine, StatusDocument, VersionLine, VoterLine,
};
