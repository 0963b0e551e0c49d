//! `plan`: running and past plans, step by step, and what a person can do about one.

use super::look::{LookArgs, ago, dash, or_dash};
use super::options::Format;
use super::orders::Given;
use super::table::Table;
use super::{Failure, Outcome, client};
use crate::admin::Exit;
use crate::engine::{Order, PlanDetail, PlansDocument, Seen};
use serde_json::Value;
use std::fmt::Write as _;

/// Verbs of plans.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PlanVerb {
    /// List the open plans
    List {
        /// The last closed ones, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        look: LookArgs,
    },
    /// Show a plan with its steps
    Show {
        /// Its number
        id: u64,
        #[command(flatten)]
        look: LookArgs,
    },
    /// Give a plan up before its point of no return
    Cancel {
        /// Its number
        id: u64,
        #[command(flatten)]
        given: Given,
    },
    /// Try the current step again at once instead of after a pause
    Retry {
        /// Its number
        id: u64,
        #[command(flatten)]
        given: Given,
    },
    /// Go on without the current step; refused for a step that carries the safety of the move
    Skip {
        /// Its number
        id: u64,
        #[command(flatten)]
        given: Given,
    },
}

pub(super) fn run(verb: &PlanVerb) -> Result<Outcome, Failure> {
    match verb {
        PlanVerb::List { all, look } => list(*all, look),
        PlanVerb::Show { id, look } => show(*id, look),
        PlanVerb::Cancel { id, given } => given.order(Order::CancelPlan { plan: *id }),
        PlanVerb::Retry { id, given } => given.order(Order::RetryPlan { plan: *id }),
        PlanVerb::Skip { id, given } => given.order(Order::SkipStep { plan: *id }),
    }
}

/// The document with only some of its plans, as JSON and as what it is.
fn plans(look: &LookArgs, keep: impl Fn(&PlanDetail) -> bool) -> Result<(Value, PlansDocument), Failure> {
    let mut document: PlansDocument = client::parse(&client::get(&look.reach, "/v1/plans")?)?;
    document.plans.retain(keep);
    Ok((serde_json::to_value(&document).expect("a document is plain data"), document))
}

fn list(all: bool, look: &LookArgs) -> Result<Outcome, Failure> {
    let (json, document) = plans(look, |plan| all || plan.state == "open")?;
    Ok(Outcome::done(match look.shown.format {
        Format::Json => format!("{json}\n"),
        Format::Text => {
            let mut table = Table::new(&["PLAN", "KIND", "GROUP", "STATE", "STEP", "TO", "BY", "NEXT"]);
            for plan in &document.plans {
                let step = plan.steps.iter().find(|step| !is_over(&step.state));
                let step = step.map_or_else(dash, |step| format!("{} {}", step.number, step.kind));
                let to = plan.to.clone().unwrap_or_else(dash);
                let (kind, group, state) = (plan.kind.clone(), plan.group.clone(), plan.state.clone());
                table.row([
                    plan.id.to_string(),
                    kind,
                    group,
                    state,
                    step,
                    to,
                    plan.initiator.clone(),
                    or_dash(&plan.next),
                ]);
            }
            format!("{}{table}", head(&document.seen))
        }
    }))
}

fn is_over(state: &str) -> bool {
    matches!(state, "done" | "undone" | "skipped")
}

fn show(id: u64, look: &LookArgs) -> Result<Outcome, Failure> {
    let (json, document) = plans(look, |plan| plan.id == id)?;
    let Some(plan) = document.plans.first() else {
        let text = format!("no plan {id} is known here; the last 256 closed ones are");
        return Err(Failure::new(Exit::Error, "unknown-name", text, "antipode plan list --all"));
    };
    Ok(Outcome::done(match look.shown.format {
        Format::Json => format!("{json}\n"),
        Format::Text => format!("{}{}", head(&document.seen), text(plan)),
    }))
}

/// Who says so, at which index, how old.
pub(super) fn head(seen: &Seen) -> String {
    format!("index {}   seen by {}, {} ago\n\n", seen.index, seen.seen_by, ago(seen.as_of_ms))
}

fn text(plan: &PlanDetail) -> String {
    let mut text = format!("plan {}: {} of {}, {}\n", plan.id, plan.kind, plan.group, plan.state);
    let to = |name: &Option<String>| name.clone().unwrap_or_else(dash);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "from {} to {}   by {}   because {}",
        to(&plan.from),
        to(&plan.to),
        plan.initiator,
        plan.because
    );
    let past = plan.pivot.map_or_else(|| "not reached".to_owned(), |index| format!("passed at index {index}"));
    let _ = writeln!(text, "point of no return {past}\n");
    let mut table = Table::new(&["STEP", "WHAT", "AT", "STATE", "ATTEMPT", "AT MOST", "DETAIL"]);
    for step in &plan.steps {
        let at = step.host.clone().unwrap_or_else(|| "leader".to_owned());
        let (kind, state, limit) = (step.kind.clone(), step.state.clone(), ago(step.deadline_ms));
        let detail = or_dash(&step.detail);
        table.row([step.number.to_string(), kind, at, state, step.attempt.to_string(), limit, detail]);
    }
    text.push_str(&table.to_string());
    if !plan.outcome.is_empty() {
        let _ = writeln!(text, "\nended: {}", plan.outcome);
    }
    for (what, measured) in [("RTO", plan.measured_rto_ms), ("RPO", plan.measured_rpo_ms)] {
        if let Some(ms) = measured {
            let _ = writeln!(text, "measured {what} {}", ago(ms));
        }
    }
    if !plan.next.is_empty() {
        let _ = writeln!(text, "next: {}", plan.next);
    }
    text
}
