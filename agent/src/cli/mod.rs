//! The command line: one definition per verb feeds parser, help, man page and completions.
//!
//! Contract: a verb that exists works. Exit statuses are [`Exit`]'s. Documents go to standard output, everything else
//! to standard error; `-o json` prints the admin API's document, an error included, and nothing else.
//!
//! Not here: what the agent answers (`admin`), the daemon (`driver::runtime`).

pub mod agent;
mod apply;
mod client;
mod config;
mod failure;
mod fence;
mod journal;
mod look;
mod moves;
mod options;
mod orders;
mod pki;
mod table;

pub use failure::Failure;

use crate::admin::Exit;
use crate::engine::Order;
use clap::{CommandFactory, Parser, Subcommand};
use options::{Format, Shown};
use quorum::ledger::PlanKind;
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
    /// Open plans
    #[command(subcommand)]
    Plan(look::PlanVerb),
    /// The voters
    #[command(subcommand)]
    Quorum(look::QuorumVerb),
    /// Membership of hosts
    #[command(subcommand)]
    Host(orders::HostVerb),
    /// Life of groups
    #[command(subcommand)]
    Group(orders::GroupVerb),
    /// Put a cluster spec into force
    Apply(apply::ApplyArgs),
    /// Check configuration files and show the time spans in force
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Create the cluster's certificate authority and issue certificates
    #[command(subcommand)]
    Pki(pki::PkiVerb),
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

/// Parses the process's arguments, does what they say, and returns the exit status.
pub fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let format = verb.format();
    let (text, status) = match run(verb) {
        Ok(outcome) => (outcome.text, outcome.status),
        Err(failure) => {
            let exit = failure.exit();
            let text = match format {
                Format::Json => failure.to_json(),
                Format::Text => {
                    eprintln!("antipode: {failure}");
                    String::new()
                }
            };
            (text, exit.code())
        }
    };
    // A reader that went away (a pager, `head`) is no error of ours.
    let _gone = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(status)
}

impl Verb {
    fn format(&self) -> Format {
        match self {
            Self::Status(args) => args.format(),
            Self::Explain(args) => args.format(),
            Self::Events(args) | Self::History(args) => args.format,
            Self::Failover(args) | Self::Switchover(args) | Self::Failback(args) | Self::Reprotect(args) => {
                args.shown.format
            }
            Self::Freeze(args) => args.format(),
            Self::Thaw(args) => args.given.shown.format,
            Self::Maintenance(args) => args.given.shown.format,
            Self::Approve(args) | Self::Deny(args) => args.given.shown.format,
            Self::Brake(orders::BrakeVerb::Release(given)) => given.shown.format,
            Self::Fence(verb) => verb.format(),
            Self::Plan(verb) => verb.format(),
            Self::Quorum(verb) => verb.format(),
            Self::Host(orders::HostVerb::Remove { given, .. }) => given.shown.format,
            Self::Group(orders::GroupVerb::Remove { given, .. }) => given.shown.format,
            Self::Man { .. } => Format::Text,
            Self::Apply(args) => args.shown.format,
            Self::Config(verb) => verb.format(),
            Self::Pki(verb) => verb.format(),
            Self::Version(args) => args.shown.format,
            Self::Agent(_) | Self::Keeper(_) | Self::Holder(_) | Self::Chassis(_) | Self::Completion { .. } => {
                Format::Text
            }
        }
    }
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
        Verb::Plan(verb) => look::plan(&verb),
        Verb::Quorum(verb) => look::quorum(&verb),
        Verb::Host(orders::HostVerb::Remove { name, given }) => given.order(Order::RemoveHost { host: name }),
        Verb::Group(orders::GroupVerb::Remove { name, given }) => given.order(Order::RemoveGroup { group: name }),
        Verb::Man { dir } => man(&dir),
        Verb::Apply(args) => apply::apply(&args),
        Verb::Config(verb) => config::run(&verb),
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
        Format::Text => format!("antipode {version}\n"),
        Format::Json => format!("{{\"api_version\":{},\"version\":\"{version}\"}}\n", crate::engine::API_VERSION),
    }
}
