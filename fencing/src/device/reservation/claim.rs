//! Claiming one volume: the order of protocol §7, over all its paths.
//!
//! Register first, *then* read the keys; a larger epoch means that we are the late one: take the registrations back and
//! fail. Pre-empt exactly the ledger's victims, abort what they have under way, take the reservation, read everything
//! back over every path. CLEAR and REGISTER AND IGNORE don't exist here, and an unknown key is never a victim.
//! Where the target can't abort, a plain PREEMPT counts only after the drain time. A registration that was ours and is
//! gone is reported and never renewed.

use super::scsi::{self, Fault, Order, Path, Sort};
use crate::key::{ReservationKey, VolumeClaim};
use crate::reading::Access;
use crate::trouble::Trouble;
use std::time::{Duration, Instant};

/// What to do about keeping registrations through a loss of power at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aptpl {
    /// A target that can't is refused.
    Require,
    /// Used where the target can.
    Prefer,
    /// Never used.
    Never,
}

/// How a volume is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The sort of reservation.
    pub sort: Sort,
    /// Through a loss of power.
    pub aptpl: Aptpl,
    /// How long a pre-empted host's commands may still be under way where they can't be aborted.
    pub drain: Duration,
}

/// What this process remembers of a volume between calls.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// We were registered with this key over every path.
    registered: Option<ReservationKey>,
    /// As how many entries the target listed that key then; some list one per path, some one in all.
    entries: usize,
    /// A path was found without this key, which it had been given.
    lost: Option<ReservationKey>,
    /// The victims' commands were aborted by us, under this key.
    aborted: Option<ReservationKey>,
    /// The victims have been absent since.
    absent_since: Option<Instant>,
}

/// Open paths, each with its name.
pub type Paths = Vec<(String, Box<dyn Path>)>;

/// A volume's open paths, each with its name.
pub struct Volume {
    /// The paths.
    pub paths: Paths,
    /// How it is claimed.
    pub policy: Policy,
}

fn on(path: &str, doing: &str) -> impl Fn(Fault) -> Trouble {
    let (path, doing) = (path.to_owned(), doing.to_owned());
    move |fault| {
        let because = format!("{doing} over {path}: {fault}");
        match fault {
            Fault::Transport(_) => Trouble::Unreachable { because },
            Fault::Garbled(_) => Trouble::Garbled { because },
            Fault::Conflict | Fault::Unsupported(..) | Fault::NoRoom | Fault::Other { .. } | Fault::Busy(_) => {
                Trouble::Refused { because }
            }
        }
    }
}

impl Volume {
    /// Claims the volume. `check` is asked before the first step that changes anything.
    ///
    /// # Errors
    /// [`Trouble`]: what the target looks like now has to be read.
    pub fn claim(
        &mut self,
        claim: &VolumeClaim,
        memory: &mut Memory,
        check: &dyn Fn() -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let own = claim.own;
        let present = self.keys_of_all_paths()?;
        if memory.registered == Some(own) && !present.contains(&own) {
            let because = format!("our registration {own} was lost; it is never renewed: a new grant is needed");
            return Err(Trouble::Refused { because });
        }
        check()?;
        let aptpl = self.aptpl()?;
        if memory.registered == Some(own) {
            self.confirm(own, aptpl, memory)?;
        } else {
            self.register(own, aptpl)?;
            memory.entries = self.entries(own)?;
            memory.registered = Some(own);
        }
        let keys = self.keys_of_all_paths()?;
        if let Some(newer) = keys.iter().find(|key| is_newer(**key, claim)) {
            self.unregister(own);
            memory.registered = None;
            let because = format!("{newer} has a larger epoch: this claim is the late one");
            return Err(Trouble::Overtaken { because });
        }
        self.preempt(claim, &keys, memory)?;
        self.reserve(own)
    }

    /// Looks at the volume over every path.
    ///
    /// # Errors
    /// [`Trouble`] if a path can't be read.
    pub fn look(&mut self, claim: &VolumeClaim, memory: &mut Memory) -> Result<Access, Trouble> {
        let mut possible = None;
        let mut victims_absent = true;
        let expected_holder = if self.policy.sort == Sort::AllRegistrants { 0 } else { claim.own.raw() };
        for (name, path) in &mut self.paths {
            let keys = scsi::read_keys(&mut **path).map_err(on(name, "reading the keys"))?;
            let reservation = scsi::read_reservation(&mut **path).map_err(on(name, "reading the reservation"))?;
            if let Some(victim) = claim.victims.iter().find(|victim| keys.contains(victim)) {
                victims_absent = false;
                possible = Some(format!("{victim} is registered"));
            } else if let Some(other) = keys.iter().find(|key| is_of_a_victim(**key, claim)) {
                // Never pre-empted, since the ledger doesn't name it; but the host can still write under it.
                victims_absent = false;
                possible =
                    Some(format!("{other} is registered: the fenced host's, of an epoch that the order doesn't name"));
            } else if memory.registered == Some(claim.own) && !keys.contains(&claim.own) {
                possible = Some(format!("our registration {} was lost; it isn't renewed", claim.own));
            } else if !keys.contains(&claim.own) {
                possible = Some("not claimed".to_owned());
            } else if memory.lost == Some(claim.own)
                || memory.registered == Some(claim.own) && count(&keys, claim.own) < memory.entries
            {
                possible = Some(format!("our registration {} was lost over a path; it isn't renewed", claim.own));
            } else {
                let ours = matches!(reservation, Some((holder, sort)) if sort == self.policy.sort.code()
                    && (holder.raw() == expected_holder || holder == claim.own));
                if !ours {
                    possible = Some(match reservation {
                        Some((holder, sort)) => format!("the reservation is {holder}'s, of type {sort}"),
                        None => "there is no reservation".to_owned(),
                    });
                }
            }
        }
        memory.absent_since = if victims_absent { memory.absent_since.or(Some(Instant::now())) } else { None };
        match possible {
            Some(why) => Ok(Access::Possible(why)),
            None => Ok(self.drained(claim, memory)),
        }
    }

    /// Whether what a victim had under way must be over.
    fn drained(&self, claim: &VolumeClaim, memory: &Memory) -> Access {
        if memory.aborted == Some(claim.own) {
            return Access::Excluded;
        }
        let absent = memory.absent_since.map(|since| since.elapsed()).unwrap_or_default();
        let left = self.policy.drain.saturating_sub(absent);
        if left.is_zero() {
            Access::Excluded
        } else {
            Access::Possible(format!("not aborted: its commands may be under way for {} s more", left.as_secs() + 1))
        }
    }

    fn keys_of_all_paths(&mut self) -> Result<Vec<ReservationKey>, Trouble> {
        let mut all = Vec::new();
        for (name, path) in &mut self.paths {
            all.extend(scsi::read_keys(&mut **path).map_err(on(name, "reading the keys"))?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    fn aptpl(&mut self) -> Result<bool, Trouble> {
        let Some((name, path)) = self.paths.first_mut() else { return Ok(false) };
        let can = scsi::can_persist(&mut **path).map_err(on(name, "asking what it can"))?;
        match (self.policy.aptpl, can) {
            (Aptpl::Never, _) | (Aptpl::Prefer, Some(false) | None) => Ok(false),
            (Aptpl::Prefer | Aptpl::Require, Some(true)) => Ok(true),
            (Aptpl::Require, Some(false) | None) => {
                let because =
                    "it can't keep registrations through a loss of power, and `aptpl` requires that".to_owned();
                Err(Trouble::Unusable { because })
            }
        }
    }

    /// Registers our key on every path. A path that has it already, or an older one of ours, is known by its conflict.
    fn register(&mut self, own: ReservationKey, aptpl: bool) -> Result<(), Trouble> {
        for (name, path) in &mut self.paths {
            let fresh = Order::Register { old: 0, new: own.raw(), aptpl };
            let mut result = scsi::order(&mut **path, fresh);
            if result == Err(Fault::Conflict) {
                let keys = scsi::read_keys(&mut **path).map_err(on(name, "reading the keys"))?;
                // Never with REGISTER AND IGNORE: only keys that are ours by name are tried.
                let ours =
                    |key: &&ReservationKey| key.cluster() == own.cluster() && key.host() == own.host() && **key <= own;
                for old in keys.iter().filter(ours) {
                    result = scsi::order(&mut **path, Order::Register { old: old.raw(), new: own.raw(), aptpl });
                    if result.is_ok() {
                        break;
                    }
                }
            }
            result.map_err(on(name, "registering"))?;
        }
        Ok(())
    }

    /// Makes sure that each path still has the registration that it was given, in a way that gives none to a path without.
    /// A target may go on listing the key of a session that has ended, so the list alone doesn't tell.
    fn confirm(&mut self, own: ReservationKey, aptpl: bool, memory: &mut Memory) -> Result<(), Trouble> {
        for (name, path) in &mut self.paths {
            let same = Order::Register { old: own.raw(), new: own.raw(), aptpl };
            scsi::order(&mut **path, same).map_err(|fault| match fault {
                Fault::Conflict => {
                    memory.lost = Some(own);
                    let because = format!(
                        "our registration {own} over {name} was lost; it is never renewed: a new grant is needed"
                    );
                    Trouble::Refused { because }
                }
                other => on(name, "confirming our registration")(other),
            })?;
        }
        Ok(())
    }

    /// The fewest entries of `own` that any path lists.
    fn entries(&mut self, own: ReservationKey) -> Result<usize, Trouble> {
        let mut fewest = usize::MAX;
        for (name, path) in &mut self.paths {
            let keys = scsi::read_keys(&mut **path).map_err(on(name, "reading the keys"))?;
            fewest = fewest.min(count(&keys, own));
        }
        Ok(fewest)
    }

    fn unregister(&mut self, own: ReservationKey) {
        for (name, path) in &mut self.paths {
            if let Err(fault) = scsi::order(&mut **path, Order::Register { old: own.raw(), new: 0, aptpl: false }) {
                tracing::warn!(path = %name, because = %fault, "a registration can't be taken back");
            }
        }
    }

    fn preempt(&mut self, claim: &VolumeClaim, keys: &[ReservationKey], memory: &mut Memory) -> Result<(), Trouble> {
        let (own, sort) = (claim.own, self.policy.sort);
        let Some((name, path)) = self.paths.first_mut() else { return Ok(()) };
        let mut aborted = true;
        let victims: Vec<_> = claim.victims.iter().filter(|victim| keys.contains(victim)).copied().collect();
        for victim in &victims {
            let order = |abort| Order::Preempt { own, victim: *victim, sort, abort };
            let result = match scsi::order(&mut **path, order(true)) {
                Err(Fault::Unsupported(..)) => {
                    aborted = false;
                    scsi::order(&mut **path, order(false))
                }
                result => result,
            };
            result.map_err(on(name, "pre-empting"))?;
        }
        if aborted && !victims.is_empty() {
            memory.aborted = Some(own);
        }
        Ok(())
    }

    /// Takes the reservation unless it is ours already. Held by somebody unknown, it is left alone.
    fn reserve(&mut self, own: ReservationKey) -> Result<(), Trouble> {
        let sort = self.policy.sort;
        let Some((name, path)) = self.paths.first_mut() else { return Ok(()) };
        match scsi::read_reservation(&mut **path).map_err(on(name, "reading the reservation"))? {
            Some((holder, code)) if code == sort.code() && (holder == own || holder.raw() == 0) => Ok(()),
            Some((holder, code)) => {
                let because = format!("{holder} holds a reservation of type {code}, and the ledger doesn't name it");
                Err(Trouble::Refused { because })
            }
            None => scsi::order(&mut **path, Order::Reserve(own, sort)).map_err(on(name, "reserving")),
        }
    }
}

fn count(keys: &[ReservationKey], wanted: ReservationKey) -> usize {
    keys.iter().filter(|key| **key == wanted).count()
}

/// Whether `key` belongs to the host of a victim, under whatever epoch.
fn is_of_a_victim(key: ReservationKey, claim: &VolumeClaim) -> bool {
    let same_host = |victim: &ReservationKey| victim.cluster() == key.cluster() && victim.host() == key.host();
    key != claim.own && claim.victims.iter().any(same_host)
}

/// Whether `key` is of this cluster, not a victim, and of a larger epoch than ours.
fn is_newer(key: ReservationKey, claim: &VolumeClaim) -> bool {
    key.cluster() == claim.own.cluster() && !claim.victims.contains(&key) && key.epoch() > claim.own.epoch()
}
