//! Options that several verbs share.

use std::path::PathBuf;

/// Where the local agent answers unless told otherwise.
pub(super) const SOCKET: &str = "/run/antipode/admin.sock";

/// How output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON document; stable and additive.
    Json,
}

/// `-o`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Shown {
    /// How to show it
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        hide_possible_values = true,
        help = "How to show it: text or json"
    )]
    pub format: Format,
}

/// Which agent is asked.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Reach {
    /// The agent's admin socket
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Why something is done.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Why {
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}
