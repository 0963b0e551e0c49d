//! `failover`, `switchover`, `failback`, `reprotect`: planned moves and failovers by hand, one group after the other.

use super::options::{Format, Reach, Shown, Why};
use super::{Failure, Outcome, client};
use crate::admin::{DoneDocument, ErrorDocument, Exit, MoveAsked};
use crate::engine::API_VERSION;
use quorum::id::{GroupName, SiteName};
use quorum::ledger::PlanKind;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often a waiting command looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Arguments of a move.
#[derive(Debug, clap::Args)]
pub(super) struct MoveArgs {
    /// The groups, in this order
    #[arg(required_unless_present = "all_from", value_name = "GROUP")]
    groups: Vec<GroupName>,
    /// All groups that are at this site now
    #[arg(long, value_name = "SITE", conflicts_with = "groups")]
    all_from: Option<SiteName>,
    /// To this host or site, instead of the host that the cluster would choose
    #[arg(long, value_name = "HOST|SITE")]
    to: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Failover: accept the loss of what the target's copy lacks; recorded with the reason
    #[arg(long, conflicts_with = "dry_run")]
    accept_loss: bool,
    /// Wait until the plan has ended
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Wait at most so many seconds; the plan goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    wait_limit: u64,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(kind: PlanKind, args: &MoveArgs) -> Result<Outcome, Failure> {
    let (mut text, mut moves) = (String::new(), Vec::new());
    for group in &groups(args)? {
        let (done, state) = one(kind, group, args)?;
        let at = if done.index == 0 { String::new() } else { format!(" (plan {})", done.index) };
        text.push_str(&format!("{group}: {}{at}\n", state.as_deref().unwrap_or(&done.detail)));
        moves.push(line_of(group, &done, state.as_deref()));
    }
    Ok(Outcome::done(match args.shown.format {
        Format::Text => text,
        Format::Json => format!("{}\n", document(&moves)),
    }))
}

fn document(moves: &[Value]) -> Value {
    json!({"api_version": API_VERSION, "moves": moves})
}

fn line_of(group: &GroupName, done: &DoneDocument, state: Option<&str>) -> Value {
    json!({"group": group, "plan": done.index, "detail": done.detail, "state": state})
}

/// The groups named, or those of the site named.
fn groups(args: &MoveArgs) -> Result<Vec<GroupName>, Failure> {
    let Some(site) = &args.all_from else { return Ok(args.groups.clone()) };
    let status = status(args)?;
    let there = status["groups"].as_array().into_iter().flatten().filter(|line| line["site"] == site.as_str());
    let named: Vec<GroupName> = there.filter_map(|line| GroupName::new(line["name"].as_str()?).ok()).collect();
    if named.is_empty() {
        let text = format!("no group is at {site} now");
        return Err(Failure::new(Exit::Error, "nothing-there", text, "antipode status shows where each group is"));
    }
    Ok(named)
}

/// Moves one group; returns what was opened, and after waiting what the group came to.
fn one(kind: PlanKind, group: &GroupName, args: &MoveArgs) -> Result<(DoneDocument, Option<String>), Failure> {
    let before = epoch(&status(args)?, group);
    let asked = MoveAsked {
        kind: kind.as_str().to_owned(),
        group: group.clone(),
        to: args.to.clone(),
        reason: args.why.reason.clone(),
        dry_run: args.dry_run,
        accept_loss: args.accept_loss,
    };
    let answer = client::post(&args.reach, "/v1/move", &asked)?;
    let done: DoneDocument = serde_json::from_value(answer)
        .map_err(|error| Failure::new(Exit::Error, "strange-answer", error.to_string(), "antipode version"))?;
    let state = if args.wait { Some(wait(kind, (group, done.index, before), args)?) } else { None };
    Ok((done, state))
}

fn status(args: &MoveArgs) -> Result<Value, Failure> {
    client::get(&args.reach, "/v1/status")
}

fn line<'s>(status: &'s Value, group: &GroupName) -> Option<&'s Value> {
    status["groups"].as_array()?.iter().find(|line| line["name"] == group.as_str())
}

fn epoch(status: &Value, group: &GroupName) -> Value {
    line(status, group).map(|line| line["epoch"].clone()).unwrap_or_default()
}

fn wait(kind: PlanKind, (group, plan, before): (&GroupName, u64, Value), args: &MoveArgs) -> Result<String, Failure> {
    let until = Instant::now() + Duration::from_secs(args.wait_limit);
    loop {
        let now = status(args)?;
        // An agent that has not applied the plan yet would not show it, either.
        let is_seen = now["index"].as_u64() >= Some(plan);
        let plans = now["plans"].as_array().cloned().unwrap_or_default();
        if is_seen && !plans.iter().any(|open| open["id"].as_u64() == Some(plan)) {
            return ended(kind, (group, plan, &before), &now);
        }
        let mine = plans.iter().find(|open| open["id"].as_u64() == Some(plan));
        if mine.is_some_and(|open| open["step"] == "AwaitApproval" && open["state"] != "failed") {
            let text = format!("plan {plan} of {group} waits for a person's approval");
            let document =
                ErrorDocument::new(Exit::Approval, "approval", text, format!("antipode approve plan {plan}"));
            return Err(Failure(document.meaning("it waits; nothing is started before")));
        }
        if Instant::now() >= until {
            let text = format!("plan {plan} of {group} goes on");
            let next = format!("antipode explain plan {plan}");
            let document = ErrorDocument::new(Exit::TimedOut, "plan-goes-on", text, next);
            return Err(Failure(document.meaning("as the plan says")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What the plan came to: a move raised the group's epoch, a reprotection brought another copy into sync.
fn ended(kind: PlanKind, (group, plan, before): (&GroupName, u64, &Value), now: &Value) -> Result<String, Failure> {
    let shown = line(now, group).cloned().unwrap_or_default();
    let copies = shown["data"]["in_sync"].as_array().map_or(0, Vec::len);
    let is_done = match kind {
        PlanKind::Reprotect => copies > 1,
        _ => shown["epoch"] != *before && shown["state"] == "running",
    };
    let (state, host) = (shown["state"].as_str().unwrap_or("unknown"), shown["host"].as_str().unwrap_or("no host"));
    if is_done {
        return Ok(format!("{} done, {state} on {host}", kind.as_str()));
    }
    let text = format!("plan {plan} ended without its aim; {group} is {state} on {host}");
    let next = format!("antipode explain group {group}; antipode events tells why");
    Err(Failure(ErrorDocument::new(Exit::Error, "plan-failed", text, next).meaning("as shown")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_moves_is_told_by_its_schema() {
        let schema: Value =
            serde_json::from_str(include_str!("../../docs/schemas/moves.json")).expect("the committed schema");
        let group = GroupName::new("erp").expect("a name");
        let done = DoneDocument::new(quorum::id::LogIndex(7), "opened".into());
        let told = document(&[line_of(&group, &done, None), line_of(&group, &done, Some("failover done"))]);
        jsonschema::validate(&schema, &told).expect("it fits");
        assert_eq!(told["moves"][0]["plan"], 7);
    }
}
