//! What a chassis is told on its command line.

use crate::keeper::args::span;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `antipode chassis`.
#[derive(Clone, Debug, clap::Args)]
pub struct ChassisArgs {
    /// The host's name
    #[arg(long, value_name = "HOST", default_value = "host")]
    pub name: String,
    /// The socket of its power button
    #[arg(long, value_name = "SOCKET")]
    pub control: PathBuf,
    /// Where the watchdog's socket, the boot id and the units' output are [default: SOCKET.d]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where it logs what happens [default: log.jsonl in DIR]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// What the host runs at power-on: a TOML file of units
    #[arg(long, value_name = "FILE")]
    pub boot: Option<PathBuf>,
    /// What the host runs at power-on: one unit, called `host`
    #[arg(value_name = "PROGRAM", last = true, conflicts_with = "boot")]
    pub argv: Vec<String>,
    /// Network namespace in which the host lives: a name of /run/netns or a path
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<PathBuf>,
    /// The host's cgroup: a path, or a name below the cgroup2 mount [default: antipode-lab-HOST]
    #[arg(long, value_name = "CGROUP")]
    pub cgroup: Option<PathBuf>,
    /// A directory that is emptied at every power-on, as a tmpfs is; may be given several times
    #[arg(long, value_name = "DIR")]
    pub volatile: Vec<PathBuf>,
    /// What the watchdog counts until it is set
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span)]
    pub watchdog_timeout: Duration,
    /// How late the chassis may be before its run is invalid [default: a tenth of the watchdog's timeout]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub margin: Option<Duration>,
    /// How long the host stays off after a reset: its power-on self test
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span)]
    pub post: Duration,
    /// Stay off when the watchdog fires
    #[arg(long)]
    pub off_after_fire: bool,
    /// Start with the power off
    #[arg(long)]
    pub start_off: bool,
    /// Send this line to the chassis that listens at SOCKET, print its answer, and end
    #[arg(long, value_name = "LINE")]
    pub send: Option<String>,
    /// Be the first process of the host (started by the chassis only)
    #[arg(long, hide = true)]
    pub init: bool,
}

impl ChassisArgs {
    /// Where the watchdog's socket, the boot id and the units' output are.
    pub fn dir(&self) -> PathBuf {
        let beside = || PathBuf::from(format!("{}.d", self.control.display()));
        self.dir.clone().unwrap_or_else(beside)
    }
}
