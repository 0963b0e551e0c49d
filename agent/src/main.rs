//! The `antipode` binary.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "antipode", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Hold the watchdog and the kill switch of this host
    Keeper(antipode::keeper::KeeperArgs),
    /// Keep the watchdog open when the keeper ends
    Holder(antipode::keeper::HolderArgs),
    /// Play the hardware of a lab host
    #[command(hide = true)]
    Chassis(antipode::lab::chassis::ChassisArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Keeper(args) => antipode::keeper::run(&args).map_err(anyhow::Error::from),
        Verb::Holder(args) => antipode::keeper::holder::run(&args).map_err(anyhow::Error::from),
        Verb::Chassis(args) => antipode::lab::chassis::run(&args).map_err(anyhow::Error::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("antipode: failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}
