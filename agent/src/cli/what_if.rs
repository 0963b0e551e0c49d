//! `what-if`: a disaster played on the state of the live cluster, by the engine that would decide it.
//!
//! Nothing but the state is asked of the cluster; what is played is played in this process.

use super::options::{Format, Reach, Shown};
use super::table::Table;
use super::{Failure, Outcome, client};
use crate::admin::{ErrorDocument, Exit, LiveDocument};
use crate::engine::{API_VERSION, decode_ledger};
use crate::sim::{self, Disaster, Forecast, GroupForecast, Live, NoForecast, UNKNOWN, what_if};
use quorum::id::{HostName, SiteName};
use serde::Serialize;
use std::fmt::Write as _;

/// Disasters.
#[derive(Debug, clap::Subcommand)]
pub(super) enum WhatIfVerb {
    /// A site loses its power, its management processors with it
    #[command(name = "site-loss")]
    Site {
        /// The site
        name: SiteName,
        #[command(flatten)]
        look: WhatIfArgs,
    },
    /// Two sites don't reach each other any more
    #[command(name = "link-loss")]
    Link {
        /// One of them
        site: SiteName,
        /// The other
        other: SiteName,
        #[command(flatten)]
        look: WhatIfArgs,
    },
    /// A host loses its power
    #[command(name = "host-loss")]
    Host {
        /// The host
        name: HostName,
        #[command(flatten)]
        look: WhatIfArgs,
    },
}

/// How it is looked at.
#[derive(Debug, clap::Args)]
pub(super) struct WhatIfArgs {
    #[command(flatten)]
    pub shown: Shown,
    #[command(flatten)]
    reach: Reach,
}

/// `what-if -o json`.
#[derive(Debug, Serialize)]
struct WhatIfDocument<'a> {
    api_version: u32,
    disaster: String,
    cluster: &'a str,
    seen_by: &'a str,
    index: u64,
    horizon_ms: u64,
    groups: &'a [GroupForecast],
    /// What the forecast rests on that isn't known.
    unknown: &'a [&'a str],
}

impl WhatIfVerb {
    const fn look(&self) -> &WhatIfArgs {
        match self {
            Self::Site { look, .. } | Self::Link { look, .. } | Self::Host { look, .. } => look,
        }
    }

    fn disaster(&self) -> (Disaster, String) {
        match self {
            Self::Site { name, .. } => (Disaster::SiteLoss(name.clone()), format!("site {name} is lost")),
            Self::Host { name, .. } => (Disaster::HostLoss(name.clone()), format!("host {name} is lost")),
            Self::Link { site, other, .. } => {
                let disaster = Disaster::LinkLoss(site.clone(), other.clone());
                (disaster, format!("{site} and {other} don't reach each other"))
            }
        }
    }

    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let look = self.look();
        let answer = client::get(&look.reach, "/v1/live")?;
        let document: LiveDocument = serde_json::from_value(answer).map_err(|error| strange(&error.to_string()))?;
        let bytes = document.ledger.bytes().ok_or_else(|| strange("the ledger is no hexadecimal text"))?;
        let live = Live {
            ledger: decode_ledger(&bytes).map_err(|error| strange(&error.to_string()))?,
            heard: document.heard.iter().cloned().collect(),
            unfenceable: document.unfenceable.iter().cloned().collect(),
        };
        let (disaster, title) = self.disaster();
        let forecast = what_if(&live, &disaster).map_err(|error| no_forecast(&error))?;
        let text = match look.shown.format {
            Format::Json => {
                let said = WhatIfDocument {
                    api_version: API_VERSION,
                    disaster: title,
                    cluster: &document.cluster,
                    seen_by: &document.seen_by,
                    index: document.index,
                    horizon_ms: u64::try_from(forecast.horizon.as_millis()).unwrap_or(u64::MAX),
                    groups: &forecast.groups,
                    unknown: &UNKNOWN,
                };
                serde_json::to_string(&said).expect("a forecast is plain data") + "\n"
            }
            Format::Text => {
                let LiveDocument { cluster, index, seen_by, .. } = &document;
                format!("if {title}   cluster {cluster}   index {index}   seen by {seen_by}\n\n") + &text(&forecast)
            }
        };
        Ok(Outcome { text, status: exit(&forecast).code() })
    }
}

/// The worst of all groups: one that is held, then one that waits for a person.
fn exit(forecast: &Forecast) -> Exit {
    let any = |outcome| forecast.groups.iter().any(|group| group.outcome == outcome);
    if any(sim::Outcome::Held) {
        Exit::Refused
    } else if any(sim::Outcome::Waits) {
        Exit::Approval
    } else {
        Exit::Done
    }
}

fn no_forecast(error: &NoForecast) -> Failure {
    let (exit, next) = match error {
        NoForecast::Unknown(_) => (Exit::Usage, "antipode status lists sites and hosts"),
        NoForecast::NoCluster => (Exit::Refused, "antipode apply"),
        NoForecast::Changing => (Exit::Refused, "antipode quorum status"),
        NoForecast::Spec(_) => (Exit::Error, "antipode version; agent and command line may differ"),
        NoForecast::Broken { .. } => (Exit::Error, "report this as a defect, with antipode bundle"),
    };
    Failure(ErrorDocument::new(exit, "no-forecast", format!("failed to {error}"), next))
}

fn strange(text: &str) -> Failure {
    let text = format!("the agent's answer can't be read: {text}");
    Failure::new(Exit::Error, "strange-answer", text, "antipode version; agent and command line may differ")
}

fn text(forecast: &Forecast) -> String {
    let mut said = String::new();
    let mut table = Table::new(&["GROUP", "RUNS ON", "THEN", "AFTER", "DATA LOSS", "SECOND COPY"]);
    let span = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100));
    for group in &forecast.groups {
        let to = group.to.clone().unwrap_or_default();
        let then = match group.outcome {
            sim::Outcome::Stays => "stays".to_owned(),
            sim::Outcome::Moves => format!("goes to {to}"),
            sim::Outcome::Waits => "waits for a person".to_owned(),
            sim::Outcome::Held => "is held".to_owned(),
            sim::Outcome::Down => "is down before and after".to_owned(),
        };
        table.row([
            group.group.clone(),
            group.from.clone().unwrap_or_else(|| "nowhere".to_owned()),
            then,
            span(group.expected_rto_ms),
            span(group.expected_rpo_ms),
            if group.protected { "yes" } else { "no" }.to_owned(),
        ]);
    }
    said += &table.to_string();
    for group in forecast.groups.iter().filter(|group| !group.because.is_empty()) {
        let _infallible = writeln!(said, "\n{}: {}", group.group, group.because);
        if !group.next.is_empty() {
            let _infallible = writeln!(said, "  next: {}", group.next);
        }
    }
    said += "\nplayed by the engine of this program on a copy of the cluster's log; what it doesn't know:\n";
    for line in UNKNOWN {
        let _infallible = writeln!(said, "  - {line}");
    }
    said
}
