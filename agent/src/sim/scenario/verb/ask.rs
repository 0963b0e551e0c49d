//! `ask`: what people order, as the command line would send it. The answer is part of the trace.

use super::super::condition::ledger;
use super::super::run::Stage;
use super::super::words::Words;
use super::{Act, Verb};
use crate::engine::{FenceAct, Matter, Move, Order, Request, Scope};
use quorum::id::{Era, GroupName, HostName, VoterId};
use quorum::ledger::{
    AcceptLoss, Command, CopyCheck, Decision, EraBegun, Incarnation, Intent, Person, PersonKey, PlanKind,
};
use std::collections::BTreeMap;
use std::time::Duration;

const USAGE: &str = "ask HOST [as NAME KEY] failover|switchover|failback|reprotect GROUP [to HOST] [accept-loss] · freeze SCOPE for SPAN \
                     [hold-activation] · thaw · maintenance SCOPE for SPAN · end-maintenance SCOPE · override SCOPE [now] · fence SCOPE · \
                     release SCOPE · accept-loss GROUP on HOST · migrate GROUP to HOST · \
                     approve|deny plan|override · release-brake · cancel-plan · remove-host HOST · remove-group GROUP · \
                     transfer HOST · apply FROM TO · recover HOSTS";

pub(super) const VERBS: [Verb; 1] = [Verb { name: "ask", usage: USAGE, read: ask }];

/// Makes the request when its time has come: some need what the ledger says then.
type Make = Box<dyn Fn(&Stage) -> Result<Request, String>>;

fn ask(words: &mut Words<'_>) -> Result<Act, String> {
    let host = words.host()?;
    let by = person(words)?;
    let make = request(words)?;
    Ok(Box::new(move |stage| {
        let request = make(stage)?;
        stage.asked = Some(stage.world.ask_as(&host, by.clone(), request));
        Ok(())
    }))
}

/// `as NAME KEY`: KEY is `local`, or any word, which stands for a certificate's key.
fn person(words: &mut Words<'_>) -> Result<Person, String> {
    if !words.took("as") {
        return Ok(Person { name: "operator".into(), key: PersonKey::Local(0) });
    }
    let name = words.next()?.to_owned();
    let key = match words.next()? {
        "local" => PersonKey::Local(0),
        word => {
            let mut key = [0; 32];
            key.iter_mut().zip(word.bytes()).for_each(|(to, from)| *to = from);
            PersonKey::Certificate(key)
        }
    };
    Ok(Person { name, key })
}

fn order(order: Order) -> Make {
    Box::new(move |_| Ok(Request::Order { order: order.clone(), reason: "scenario".into() }))
}

/// dispatcher: one arm a request.
fn request(words: &mut Words<'_>) -> Result<Make, String> {
    let name = words.next()?;
    Ok(match name {
        "failover" => moved(words, PlanKind::Failover)?,
        "switchover" => moved(words, PlanKind::Switchover)?,
        "failback" => moved(words, PlanKind::Failback)?,
        "reprotect" => moved(words, PlanKind::Reprotect)?,
        "freeze" => {
            let scope = scope(words)?;
            words.must("for")?;
            let span_ms = millis(words)?;
            let hold_activation = words.took("hold-activation");
            order(Order::Freeze { scope, span_ms, hold_activation })
        }
        "thaw" => Box::new(|stage| {
            let freeze = ledger(&stage.world).and_then(|ledger| ledger.freezes().keys().next_back().copied());
            let freeze = freeze.ok_or("nothing is frozen")?.0;
            Ok(Request::Order { order: Order::Thaw { freeze }, reason: "scenario".into() })
        }),
        "maintenance" => {
            let scope = scope(words)?;
            words.must("for")?;
            order(Order::Maintenance { scope, span_ms: millis(words)? })
        }
        "end-maintenance" => order(Order::EndMaintenance { scope: scope(words)? }),
        "override" => {
            let scope = scope(words)?;
            fence(scope, FenceAct::Override { at_once: words.took("now"), span_ms: None })
        }
        "fence" => fence(scope(words)?, FenceAct::Run),
        "release" => fence(scope(words)?, FenceAct::Release),
        "accept-loss" => accept_loss(words)?,
        "migrate" => migrate(words)?,
        "approve" => matter(words, |matter| Order::Approve { matter })?,
        "deny" => matter(words, |matter| Order::Deny { matter })?,
        "release-brake" => order(Order::ReleaseBrake),
        "cancel-plan" => Box::new(|stage| {
            let Matter::Plan(plan) = open_plan(stage)? else { return Err("no plan is open".into()) };
            Ok(Request::Order { order: Order::CancelPlan { plan }, reason: "scenario".into() })
        }),
        "remove-host" => order(Order::RemoveHost { host: words.host()? }),
        "remove-group" => order(Order::RemoveGroup { group: words.group()? }),
        "transfer" => transfer(words.host()?),
        "apply" => apply(words)?,
        "recover" => recover(words)?,
        other => return Err(format!("{other:?} is no request")),
    })
}

fn fence(scope: Scope, act: FenceAct) -> Make {
    Box::new(move |_| {
        let (scope, reason) = (scope.clone(), "scenario".to_owned());
        Ok(Request::Fence { scope, act, reason, dry_run: false })
    })
}

/// The spec, with a text in it replaced.
fn apply(words: &mut Words<'_>) -> Result<Make, String> {
    let (from, to) = (words.next()?.to_owned(), words.next()?.to_owned());
    Ok(Box::new(move |stage| {
        if !stage.cluster.source.contains(&from) {
            return Err(format!("the spec has no {from:?}"));
        }
        let source = stage.cluster.source.replace(&from, &to);
        Ok(Request::Apply { source, dry_run: false, reason: "scenario".into() })
    }))
}

/// A new era, of the voters named, the others being called unreachable.
fn recover(words: &mut Words<'_>) -> Result<Make, String> {
    let hosts = words.hosts()?;
    Ok(Box::new(move |stage| {
        let ledger = ledger(&stage.world).ok_or("nobody has a ledger")?;
        let voters = ledger.membership().all_voters().map(|voter| (hosts.contains(&voter.host), voter.id));
        let (survivors, unreachable): (Vec<_>, Vec<_>) = voters.partition(|(survives, _)| *survives);
        let ids = |voters: Vec<(bool, VoterId)>| voters.into_iter().map(|(_, id)| id).collect();
        let era = Era(ledger.era().0 + 1);
        let begun = EraBegun {
            era,
            survivors: ids(survivors),
            unreachable: ids(unreachable),
            places: BTreeMap::new(),
            by: decision(),
        };
        Ok(Request::Command(Box::new(Command::EraBegun(begun))))
    }))
}

/// A person accepts that what only the lost copy has is gone.
fn accept_loss(words: &mut Words<'_>) -> Result<Make, String> {
    let group = words.group()?;
    words.must("on")?;
    let copy = words.host()?;
    Ok(Box::new(move |stage| {
        let state = ledger(&stage.world).and_then(|ledger| ledger.group(&group)).ok_or("the group isn't born yet")?;
        let place = stage.world.hosts.get(&copy).and_then(|host| host.places.get(&group));
        let has = place.and_then(|place| place.volume.as_ref()).map(|volume| volume.generation).unwrap_or_default();
        let own = if has < state.generation { CopyCheck::Older(has) } else { CopyCheck::Agrees };
        let (group, copy, epoch) = (group.clone(), copy.clone(), state.epoch);
        let accepted = AcceptLoss { group, epoch, copy, own, expected_loss: None, by: decision() };
        Ok(Request::Command(Box::new(Command::AcceptLoss(accepted))))
    }))
}

/// The intent of a live migration, as a driver that can migrate would have it proposed.
fn migrate(words: &mut Words<'_>) -> Result<Make, String> {
    let group = words.group()?;
    words.must("to")?;
    let host = words.host()?;
    Ok(Box::new(move |stage| {
        let ledger = ledger(&stage.world).ok_or("nobody has a ledger")?;
        let state = ledger.group(&group).ok_or("the group isn't born yet")?;
        let from = state.ticket.as_ref().ok_or("nobody owns the group")?.of.clone();
        let (he, _) = ledger.admitted(&host).ok_or("the target isn't admitted")?;
        let to = Incarnation { host: host.clone(), he };
        let deadline = Duration::from_secs(60);
        let intent = Intent { group: group.clone(), epoch: state.epoch, from, to, deadline, plan: None };
        Ok(Request::Command(Box::new(Command::MigrateIntent(intent))))
    }))
}

fn decision() -> Decision {
    let by = Person { name: "operator".into(), key: PersonKey::Local(0) };
    Decision { by, reason: "scenario".into(), shown: String::new() }
}

fn moved(words: &mut Words<'_>, kind: PlanKind) -> Result<Make, String> {
    let group: GroupName = words.group()?;
    let to: Option<HostName> = if words.took("to") { Some(words.host()?) } else { None };
    let accept_loss = words.took("accept-loss");
    Ok(Box::new(move |_| {
        let (group, to) = (group.clone(), to.clone());
        Ok(Request::Move(Move {
            kind,
            group,
            to,
            toward: None,
            reason: "scenario".into(),
            dry_run: false,
            accept_loss,
        }))
    }))
}

fn scope(words: &mut Words<'_>) -> Result<Scope, String> {
    Ok(match words.next()? {
        "cluster" => Scope::Cluster,
        "site" => Scope::Site(words.site()?),
        "host" => Scope::Host(words.host()?),
        "group" => Scope::Group(words.group()?),
        other => return Err(format!("{other:?} is no scope; write cluster, site NAME, host NAME or group NAME")),
    })
}

fn millis(words: &mut Words<'_>) -> Result<u64, String> {
    Ok(u64::try_from(words.span()?.as_millis()).unwrap_or(u64::MAX))
}

fn matter(words: &mut Words<'_>, make: fn(Matter) -> Order) -> Result<Make, String> {
    let find: fn(&Stage) -> Result<Matter, String> = match words.next()? {
        "plan" => open_plan,
        "override" => open_override,
        other => return Err(format!("{other:?} is no matter; write plan or override")),
    };
    Ok(Box::new(move |stage| Ok(Request::Order { order: make(find(stage)?), reason: "scenario".into() })))
}

/// The newest open plan.
fn open_plan(stage: &Stage) -> Result<Matter, String> {
    let plans = ledger(&stage.world).map(|ledger| ledger.plans()).into_iter().flatten();
    let open = plans.filter(|(_, plan)| plan.is_open()).map(|(id, _)| id.0).max();
    open.map(Matter::Plan).ok_or_else(|| "no plan is open".to_owned())
}

/// The newest override that waits.
fn open_override(stage: &Stage) -> Result<Matter, String> {
    let waiting = ledger(&stage.world).and_then(|ledger| ledger.overrides().keys().next_back().copied());
    waiting.map(|index| Matter::Override(index.0)).ok_or_else(|| "no override waits".to_owned())
}

fn transfer(host: HostName) -> Make {
    Box::new(move |stage| {
        let ledger = ledger(&stage.world).ok_or("nobody has a ledger")?;
        let voter = ledger.membership().all_voters().find(|voter| voter.host == host);
        voter.map(|voter| Request::Transfer(voter.id)).ok_or_else(|| format!("{host} doesn't vote"))
    })
}
