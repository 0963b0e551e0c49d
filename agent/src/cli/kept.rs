//! `kept`: what an old side had and the new one hasn't, kept before it was overwritten.

use super::options::{Format, Reach, Shown};
use super::table::Table;
use super::{Failure, Outcome, client};
use serde_json::Value;

/// How to look.
#[derive(Debug, clap::Args)]
pub(super) struct KeptArgs {
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    reach: Reach,
}

/// Verbs of kept data.
#[derive(Debug, clap::Subcommand)]
pub(super) enum KeptVerb {
    /// List the sets that are kept on this host
    List(KeptArgs),
    /// Show a set, and where its files are
    Show {
        /// Its name
        id: String,
        #[command(flatten)]
        look: KeptArgs,
    },
    /// Delete a set for good
    Delete {
        /// Its name
        id: String,
        #[command(flatten)]
        look: KeptArgs,
    },
}

impl KeptVerb {
    fn format(&self) -> Format {
        match self {
            Self::List(look) | Self::Show { look, .. } | Self::Delete { look, .. } => look.shown.format,
        }
    }

    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let (answer, is_one) = match self {
            Self::List(look) => (client::get(&look.reach, "/v1/kept")?, false),
            Self::Show { id, look } => (client::get(&look.reach, &format!("/v1/kept/{id}"))?, true),
            Self::Delete { id, look } => (client::post(&look.reach, &format!("/v1/kept/{id}/delete"), &())?, false),
        };
        let text = match (self.format(), self, is_one) {
            (Format::Json, ..) => format!("{answer}\n"),
            (Format::Text, Self::Delete { id, .. }, _) => format!("{id} is deleted\n"),
            (Format::Text, _, true) => one(&answer["sets"][0]),
            (Format::Text, _, false) => table(&answer),
        };
        Ok(Outcome::done(text))
    }
}

fn table(answer: &Value) -> String {
    let sets = answer["sets"].as_array().map(Vec::as_slice).unwrap_or_default();
    if sets.is_empty() {
        return "nothing is kept on this host\n".into();
    }
    let mut table = Table::new(&["SET", "GROUP", "VOLUME", "GENERATION", "BYTES"]);
    for set in sets {
        let cells = ["id", "group", "volume", "generation", "bytes"].map(|key| plain(&set[key]));
        table.row(cells);
    }
    table.to_string()
}

fn one(set: &Value) -> String {
    let mut text = String::new();
    let keys = ["id", "group", "volume", "host", "generation", "replaced_under", "bytes", "chunk_bytes", "path"];
    for key in keys {
        text.push_str(&format!("{key:<15} {}\n", plain(&set[key])));
    }
    text.push_str("`data` in that folder has each kept chunk at its own place; `chunks` lists them (8 bytes each).\n");
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
