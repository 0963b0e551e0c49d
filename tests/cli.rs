//! The command line and the admin API, live: a one-voter agent on loopback, asked with the real program.
//!
//! No root, no namespace, no watchdog is needed: the host has no keeper, so it is never admitted and no group starts.
//! What moves groups is shown by the lab (`tests/lab`) and the demonstration.

#[path = "cli/fence.rs"]
mod fence;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/lab.rs"]
mod lab;
#[path = "cli/people.rs"]
mod people;
#[path = "cli/schema.rs"]
mod schema;
#[path = "cli/scrape.rs"]
mod scrape;
#[path = "cli/verbs.rs"]
mod verbs;
#[path = "cli/voters.rs"]
mod voters;
