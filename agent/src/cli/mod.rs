//! The command line: one definition per verb feeds parser, help, man page and completions.
//!
//! Contract: a verb that exists works. Exit statuses are [`Exit`]'s. Documents go to standard output, everything else
//! to standard error; `-o json` prints the admin API's document, an error included, and nothing else.
//!
//! Not here: what the agent answers (`admin`), the daemon (`driver::runtime`).

pub mod agent;
mod apply;
mod audit;
mod bundle;
mod client;
mod config;
mod doctor;
mod failure;
mod fence;
mod join;
mod journal;
mod kept;
mod look;
mod moves;
mod options;
mod orders;
mod pki;
mod plans;
mod quorum;
mod simulate;
mod table;
mod what_if;

pub use failure::Failure;

use crate::admin::Exit;
use crate::engine::Order;
use ::quorum::ledger::PlanKind;
use clap::{CommandFactory, Parser, Subcommand};
use options::{Format, Shown};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// Geo-cluster heartbeat and failover agent
#[derive(Debug, Parser)]
#[command(name = "antipode", version, propagate_version = false, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How does everything stand?
    Status(look::StatusArgs),
    /// Why is it so? Gate by gate
    Explain(look::ExplainArgs),
    /// What happened at the agent
    Events(journal::EventsArgs),
    /// What the cluster decided, as the agent saw it
    History(journal::EventsArgs),
    /// Take groups over behind a fence
    Failover(moves::MoveArgs),
    /// Move groups in a planned way; nothing is lost
    Switchover(moves::MoveArgs),
    /// Move groups home in a planned way
    Failback(moves::MoveArgs),
    /// Replicate groups to another host and wait until it has everything
    Reprotect(moves::MoveArgs),
    /// Stop new declarations and plans for a while
    Freeze(orders::FreezeArgs),
    /// End a freeze
    Thaw(orders::ThawArgs),
    /// Begin or end work on a host or site: it isn't declared lost and gets nothing new
    Maintenance(orders::MaintenanceArgs),
    /// Say go to a plan, or agree with an override
    Approve(orders::MatterArgs),
    /// Say no to a plan or an override
    Deny(orders::MatterArgs),
    /// The brake on automatic activation
    #[command(subcommand)]
    Brake(orders::BrakeVerb),
    /// Fencing, and the manual override
    #[command(subcommand)]
    Fence(fence::FenceVerb),
    /// Running and past plans
    #[command(subcommand)]
    Plan(plans::PlanVerb),
    /// The voters
    #[command(subcommand)]
    Quorum(quorum::QuorumVerb),
    /// Membership of hosts
    #[command(subcommand)]
    Host(orders::HostVerb),
    /// Life of groups
    #[command(subcommand)]
    Group(orders::GroupVerb),
    /// What an old side had and the new one hasn't, kept before it was overwritten
    #[command(subcommand)]
    Kept(kept::KeptVerb),
    /// Put a cluster spec into force
    Apply(apply::ApplyArgs),
    /// Configuration: check files, show what is in force, go back
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Play a scenario with the engine that decides in the agent
    Simulate(simulate::SimulateArgs),
    /// Play a disaster on the state of the live cluster, without touching it
    #[command(subcommand)]
    WhatIf(what_if::WhatIfVerb),
    /// The cluster's certificate authority and its certificates
    #[command(subcommand)]
    Pki(pki::PkiVerb),
    /// Obtain this host's certificate with a token from `pki token`
    Join(join::JoinArgs),
    /// What people did, and whether the record of it is whole
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Check this machine: certificates, disk, clocks, watchdog, ports, memory, kernel, agent
    Doctor(doctor::DoctorArgs),
    /// Collect what support needs into one archive, with secrets removed
    Bundle(bundle::BundleArgs),
    /// Run this host's agent
    Agent(agent::AgentArgs),
    /// Hold the watchdog and the kill switch of this host
    Keeper(crate::keeper::KeeperArgs),
    /// Keep the watchdog open when the keeper ends
    Holder(crate::keeper::HolderArgs),
    /// Play the hardware of a lab host
    #[command(hide = true)]
    Chassis(crate::lab::chassis::ChassisArgs),
    /// Say which version this is
    Version(VersionArgs),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory; it must be there
        dir: std::path::PathBuf,
    },
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct VersionArgs {
    #[command(flatten)]
    shown: Shown,
}

/// What a verb did: nothing more to say, or a text for standard output and how to end.
struct Outcome {
    text: String,
    /// Exit status.
    status: u8,
}

impl Outcome {
    fn done(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: Exit::Done.code() }
    }
}

/// Whether a text for people names a command that there is: `antipode` and its verb, down to the last one.
pub fn names_a_command(text: &str) -> bool {
    text.match_indices("antipode ").any(|(at, name)| is_a_command(&text[at + name.len()..]))
}

fn is_a_command(words: &str) -> bool {
    let root = Cli::command();
    let mut command = &root;
    for word in words.split_whitespace() {
        let name = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        match command.find_subcommand(name) {
            Some(verb) if verb.has_subcommands() => command = verb,
            Some(_) => return true,
            None => return false,
        }
    }
    false
}

/// Parses the process's arguments, does what they say, and returns the exit status.
pub fn main() -> ExitCode {
    let is_json = options::wants_json(std::env::args_os());
    let verb = match Cli::try_parse() {
        Ok(cli) => cli.verb,
        Err(error) if is_json && error.use_stderr() => {
            let text = error.render().to_string();
            let failure = Failure::new(Exit::Usage, "usage", text.trim(), "antipode help");
            print!("{}", failure.to_json());
            return ExitCode::from(Exit::Usage.code());
        }
        Err(error) => error.exit(),
    };
    let (text, status) = match run(verb) {
        Ok(outcome) => (outcome.text, outcome.status),
        Err(failure) => {
            let exit = failure.exit();
            let text = if is_json {
                failure.to_json()
            } else {
                let _unread = writeln!(std::io::stderr(), "antipode: {failure}");
                String::new()
            };
            (text, exit.code())
        }
    };
    // A reader that went away (a pager, `head`) is no error of ours.
    let _gone = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(status)
}

// dispatcher: one line a verb.
fn run(verb: Verb) -> Result<Outcome, Failure> {
    match verb {
        Verb::Status(args) => look::status(&args),
        Verb::Explain(args) => look::explain(&args),
        Verb::Events(args) => journal::run(&args, None),
        Verb::History(args) => journal::run(&args, Some("applied")),
        Verb::Failover(args) => moves::run(PlanKind::Failover, &args),
        Verb::Switchover(args) => moves::run(PlanKind::Switchover, &args),
        Verb::Failback(args) => moves::run(PlanKind::Failback, &args),
        Verb::Reprotect(args) => moves::run(PlanKind::Reprotect, &args),
        Verb::Freeze(args) => args.run(),
        Verb::Thaw(args) => args.run(),
        Verb::Maintenance(args) => args.run(),
        Verb::Approve(args) => args.approve(),
        Verb::Deny(args) => args.deny(),
        Verb::Brake(orders::BrakeVerb::Release(given)) => given.order(Order::ReleaseBrake),
        Verb::Fence(verb) => verb.run(),
        Verb::Plan(verb) => plans::run(&verb),
        Verb::Audit(verb) => audit::run(&verb),
        Verb::Join(args) => join::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Bundle(args) => bundle::run(&args),
        Verb::Kept(verb) => verb.run(),
        Verb::Quorum(verb) => verb.run(),
        Verb::Host(orders::HostVerb::Readmit { name, given }) => given.order(Order::ReadmitHost { host: name }),
        Verb::Host(orders::HostVerb::Remove { name, given }) => given.order(Order::RemoveHost { host: name }),
        Verb::Group(orders::GroupVerb::Remove { name, given }) => given.order(Order::RemoveGroup { group: name }),
        Verb::Man { dir } => man(&dir),
        Verb::Apply(args) => apply::apply(&args),
        Verb::Config(verb) => config::run(&verb),
        Verb::Simulate(args) => args.run(),
        Verb::WhatIf(verb) => verb.run(),
        Verb::Pki(verb) => pki::run(&verb),
        Verb::Agent(args) => agent::run(&args, crate::driver::runtime::run).map(|()| Outcome::done("")),
        Verb::Keeper(args) => ended("keeper-ended", crate::keeper::run(&args)),
        Verb::Holder(args) => ended("holder-ended", crate::keeper::holder::run(&args)),
        Verb::Chassis(args) => ended("chassis-ended", crate::lab::chassis::run(&args)),
        Verb::Version(args) => Ok(Outcome::done(version(args.shown.format))),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "antipode", &mut script);
            Ok(Outcome::done(String::from_utf8_lossy(&script)))
        }
    }
}

/// A daemon that printed what it had to say by itself.
fn ended<E: std::error::Error>(code: &str, result: Result<(), E>) -> Result<Outcome, Failure> {
    result.map_err(|error| Failure::ended(code, &error, "the text says what failed"))?;
    Ok(Outcome::done(""))
}

/// One page for the program and one for each verb, as packages want them.
fn man(dir: &std::path::Path) -> Result<Outcome, Failure> {
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|error| Failure::new(Exit::Error, "file-unwritable", format!("{}: {error}", dir.display()), ""))?;
    Ok(Outcome::done(""))
}

fn version(format: Format) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        Format::Text => {
            format!("antipode {version}\nunderstands clusters up to version {}\n", ::quorum::ledger::VERSION)
        }
        Format::Json => {
            let (api_version, understands) = (crate::engine::API_VERSION, ::quorum::ledger::VERSION);
            format!("{}\n", json!({"api_version": api_version, "version": version, "understands": understands}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_a_command_only_if_there_is_one() {
        for text in
            ["antipode quorum recover", "bring tk-1 back, or antipode failover erp --accept-loss", "`antipode status`"]
        {
            assert!(names_a_command(text), "{text}");
        }
        for text in
            ["", "bring tk-1 back", "antipode", "antipode quorum", "antipode quorum mend", "antipode frobnicate erp"]
        {
            assert!(!names_a_command(text), "{text}");
        }
    }
}
