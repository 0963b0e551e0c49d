//! `boot`: brings the cluster up as its spec says, until it is quiet. Times and trace count from its end.

use super::super::condition::{Condition, answer_as_words};
use super::super::run::{Seen, Stage};
use super::super::words::{Cast, Words};
use super::Verb;
use crate::engine::{Engine, Request};
use crate::sim::SimHost;
use quorum::id::HostName;
use std::time::Duration;

/// A leader, a commit, admissions, births, starts and the first mirror.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) const VERBS: [Verb; 2] = [
    Verb { name: "boot", usage: "boot", read: |_| Ok(Box::new(|stage| boot(stage, true))) },
    Verb { name: "boot-bare", usage: "boot-bare", read: |_| Ok(Box::new(|stage| boot(stage, false))) },
];

fn boot(stage: &mut Stage, until_quiet: bool) -> Result<(), String> {
    let off = stage.cluster.off.clone();
    let hosts: Vec<HostName> = stage.world.hosts.keys().filter(|host| !off.contains(*host)).cloned().collect();
    for host in &hosts {
        stage.world.power_on(host);
    }
    let leader = |host: &SimHost| host.engine().is_some_and(Engine::is_leader);
    stage.until("somebody leads", LIMIT, |world| world.hosts.values().any(leader))?;
    let leads = stage.world.hosts.iter().find(|(_, host)| leader(host)).map(|(name, _)| name.clone());
    let leads = leads.ok_or("nobody leads")?;
    let source = stage.cluster.source.clone();
    let ticket = stage.world.ask(&leads, Request::Apply { source, dry_run: false, reason: "boot".into() });
    stage.until("the spec is in force", LIMIT, |world| world.answers.contains_key(&ticket))?;
    let (how, said) = answer_as_words(stage.world.answers.get(&ticket));
    if how != "done" {
        return Err(format!("the spec was {how}: {said}"));
    }
    if until_quiet {
        let cast = Cast::default();
        let quiet = Condition::read(&mut Words::new("quiet", &cast))?;
        let nothing = Seen { lines: &[], asked: None };
        stage.until("everything is quiet", LIMIT, |world| quiet.holds(world, &nothing))?;
        // What is still on its way arrives, so that a scenario begins at rest.
        stage
            .until("", Duration::from_secs(2), |_| false)
            .or_else(|why| if why.starts_with("not within") { Ok(()) } else { Err(why) })?;
    }
    stage.begin();
    Ok(())
}
