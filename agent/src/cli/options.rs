//! Options that several verbs share.

use std::path::PathBuf;

/// `-o json` in the arguments: errors of the parser itself are told in that form, too.
pub(super) fn wants_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let arguments: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let joined = ["-ojson", "-o=json", "--output=json"];
    arguments.iter().any(|word| joined.contains(&word.as_str()))
        || arguments.windows(2).any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json")
}

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
    #[arg(long, value_name = "PATH", default_value = SOCKET, help_heading = "Which agent")]
    pub socket: PathBuf,
    /// Another machine's agent, as a name or an address
    #[arg(long = "host", value_name = "NAME[:PORT]", conflicts_with = "socket", help_heading = "Which agent")]
    pub agent: Option<String>,
    /// Your certificate for it: the directory that `pki issue` wrote
    #[arg(long, value_name = "DIR", env = "ANTIPODE_IDENTITY", hide_env_values = true, help_heading = "Which agent")]
    pub identity: Option<PathBuf>,
}

/// Why something is done.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Why {
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}
