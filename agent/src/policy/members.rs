//! The next step of a change of the voters: learner, caught up, voter; and who goes for whom.
//!
//! ```text
//!   add ──► learner ──caught up──► voter            replacing: voter and removal in one joint step
//!   remove ──────────────────────► gone             one change at a time
//! ```
//! A learner is a voter to be: whoever leads promotes it, whoever asked for it. A voter that lost its memory comes back
//! on the same host under a new id, and its old id goes in the same joint step.
//!
//! Not here: what raft allows (`quorum::replica::membership` checks again), reaching the leader, the audit.

use quorum::id::{HostName, VoterId};
use quorum::replica::MemberStep;
use quorum::replica::membership::VOTERS_MAX;
use quorum::roster::{Membership, VoterInfo, majority};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Fewer voters than this can lose none.
const VOTERS_SAFE: usize = 3;

/// What is wanted of the voters. Ids, not hosts, name who goes: sent again after it is done, it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// A host is to vote.
    Add {
        /// The host.
        host: HostName,
        /// The voter that goes for it.
        replaces: Option<VoterId>,
    },
    /// A voter or learner goes.
    Remove {
        /// Which.
        voter: VoterId,
        /// Also if so few are left that none may be lost.
        anyway: bool,
    },
}

/// What the leader knows.
#[derive(Clone, Debug)]
pub struct MembersView<'a> {
    /// The configuration in force.
    pub membership: &'a Membership,
    /// A change is in the log and not applied.
    pub is_pending: bool,
    /// Members that answer, the leader included.
    pub active: BTreeSet<VoterId>,
    /// Members that have everything that is committed.
    pub caught_up: BTreeSet<VoterId>,
    /// A lease whose end is waited for: a change would start the wait again (protocol §3).
    pub awaited: Option<String>,
}

/// What to do about a wish now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Propose this.
    Propose(Vec<MemberStep>),
    /// Nothing yet.
    Wait(String),
    /// It is as wished.
    Done,
    /// It won't be done.
    Refuse(String),
}

impl MembersView<'_> {
    /// Why no change can begin now.
    fn busy(&self) -> Option<String> {
        if self.is_pending || self.membership.is_joint() {
            return Some("another change of the voters is under way".to_owned());
        }
        self.awaited.as_ref().map(|of| format!("the end of the lease of {of} is waited for"))
    }

    /// The promotion that is due, if any: the first learner that has caught up, and who goes for it.
    pub fn promotion(&self, replaced_by: impl Fn(&HostName) -> Option<VoterId>) -> Option<Vec<MemberStep>> {
        if self.busy().is_some() {
            return None;
        }
        let ready = |info: &&VoterInfo| self.caught_up.contains(&info.id) && self.active.contains(&info.id);
        let learner = self.membership.learners.values().find(ready)?;
        let mut goes: BTreeSet<VoterId> =
            self.membership.voters.values().filter(|voter| voter.host == learner.host).map(|voter| voter.id).collect();
        goes.extend(replaced_by(&learner.host).filter(|id| self.membership.voters.contains_key(id)));
        if self.membership.voters.len() - goes.len() >= VOTERS_MAX {
            return None;
        }
        let add = MemberStep::AddVoter(learner.clone());
        Some([add].into_iter().chain(goes.into_iter().map(MemberStep::Remove)).collect())
    }
}

/// Whether `wish` is fulfilled in `membership`.
pub fn is_done(wish: &Wish, membership: &Membership) -> bool {
    if membership.is_joint() {
        return false;
    }
    match wish {
        Wish::Add { host, replaces } => {
            let votes = membership.voters.values().any(|voter| voter.host == *host && Some(voter.id) != *replaces);
            votes && replaces.is_none_or(|gone| !membership.voters.contains_key(&gone))
        }
        Wish::Remove { voter, .. } => {
            !membership.voters.contains_key(voter) && !membership.learners.contains_key(voter)
        }
    }
}

/// The next step towards `wish`. `info` is the host as a new member; `by_itself`: the host asks for itself.
pub fn next(view: &MembersView<'_>, wish: &Wish, info: Option<&VoterInfo>, by_itself: bool) -> Verdict {
    if is_done(wish, view.membership) {
        return Verdict::Done;
    }
    match wish {
        Wish::Add { host, replaces } => add(view, host, *replaces, (info, by_itself)),
        Wish::Remove { voter, anyway } => remove(view, *voter, *anyway),
    }
}

fn add(
    view: &MembersView<'_>,
    host: &HostName,
    replaces: Option<VoterId>,
    (info, by_itself): (Option<&VoterInfo>, bool),
) -> Verdict {
    let members = view.membership;
    if members.learners.values().any(|learner| learner.host == *host) {
        return Verdict::Wait(format!("{host} receives the log; it votes once it has caught up"));
    }
    let gone = replaces.filter(|id| members.voters.contains_key(id));
    let votes = members.voters.values().any(|voter| voter.host == *host && Some(voter.id) != replaces);
    if let (true, Some(gone)) = (votes, gone) {
        // Promoted by a leader that didn't know for whom.
        return proposed(view, MemberStep::Remove(gone));
    }
    let Some(info) = info else {
        return Verdict::Refuse(format!("{host} is no host of the cluster spec: add it there first (antipode apply)"));
    };
    let is_own = gone.and_then(|id| members.voters.get(&id)).is_some_and(|voter| voter.host == *host);
    if is_own && !by_itself && gone.is_some_and(|id| view.active.contains(&id)) {
        return Verdict::Refuse(format!("the voter on {host} answers: only a dead one is replaced on its own host"));
    }
    if members.voters.len() - usize::from(gone.is_some()) >= VOTERS_MAX {
        return Verdict::Refuse(format!("there are {VOTERS_MAX} voters already: remove or replace one"));
    }
    proposed(view, MemberStep::AddLearner(info.clone()))
}

fn remove(view: &MembersView<'_>, voter: VoterId, anyway: bool) -> Verdict {
    let members = view.membership;
    if members.voters.contains_key(&voter) {
        let left: Vec<VoterId> = members.voters.keys().copied().filter(|id| *id != voter).collect();
        let answering = left.iter().filter(|id| view.active.contains(id)).count();
        if left.is_empty() || answering < majority(left.len()) {
            return Verdict::Refuse(format!(
                "of the {} voters that would be left {answering} answer: they could decide nothing any more",
                left.len()
            ));
        }
        if left.len() < VOTERS_SAFE && !anyway {
            return Verdict::Refuse(format!(
                "{} voters would be left, of which none may be lost: replace it (antipode quorum add HOST --replace \
                 HOST), or say --anyway",
                left.len()
            ));
        }
    }
    proposed(view, MemberStep::Remove(voter))
}

fn proposed(view: &MembersView<'_>, step: MemberStep) -> Verdict {
    match view.busy() {
        Some(because) => Verdict::Wait(because),
        None => Verdict::Propose(vec![step]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::id::SiteName;
    use std::collections::BTreeMap;

    fn info(id: u64, host: &str) -> VoterInfo {
        let site = SiteName::new("s").expect("a name");
        VoterInfo { id: VoterId(id), host: HostName::new(host).expect("a name"), site }
    }

    fn half(members: &[(u64, &str)]) -> BTreeMap<VoterId, VoterInfo> {
        members.iter().map(|(id, host)| (VoterId(*id), info(*id, host))).collect()
    }

    fn view(membership: &Membership, active: &[u64]) -> MembersView<'static> {
        let active: BTreeSet<VoterId> = active.iter().map(|id| VoterId(*id)).collect();
        let membership: &'static Membership = Box::leak(Box::new(membership.clone()));
        MembersView { membership, is_pending: false, caught_up: active.clone(), active, awaited: None }
    }

    fn three() -> Membership {
        Membership { voters: half(&[(1, "a"), (2, "b"), (3, "c")]), ..Membership::default() }
    }

    fn add_d(replaces: Option<u64>) -> Wish {
        Wish::Add { host: HostName::new("d").expect("a name"), replaces: replaces.map(VoterId) }
    }

    #[test]
    fn a_host_first_learns_then_votes_and_its_predecessor_goes_in_the_same_step() {
        let mut members = three();
        let wish = add_d(Some(2));
        let d = info(9, "d");
        let first = next(&view(&members, &[1, 3]), &wish, Some(&d), false);
        assert_eq!(first, Verdict::Propose(vec![MemberStep::AddLearner(d.clone())]));
        members.learners.insert(d.id, d.clone());
        assert!(matches!(next(&view(&members, &[1, 3]), &wish, Some(&d), false), Verdict::Wait(_)));
        assert_eq!(view(&members, &[1, 3]).promotion(|_| Some(VoterId(2))), None, "it hasn't caught up");
        let steps = view(&members, &[1, 3, 9]).promotion(|_| Some(VoterId(2)));
        assert_eq!(steps, Some(vec![MemberStep::AddVoter(d.clone()), MemberStep::Remove(VoterId(2))]));
        let after = Membership { voters: half(&[(1, "a"), (3, "c"), (9, "d")]), ..Membership::default() };
        assert_eq!(next(&view(&after, &[1, 3, 9]), &wish, Some(&d), false), Verdict::Done);
    }

    #[test]
    fn a_wish_sent_again_after_a_change_of_leader_still_removes_the_replaced() {
        let members = Membership { voters: half(&[(1, "a"), (2, "b"), (3, "c"), (9, "d")]), ..Membership::default() };
        let verdict = next(&view(&members, &[1, 3, 9]), &add_d(Some(2)), Some(&info(10, "d")), false);
        assert_eq!(verdict, Verdict::Propose(vec![MemberStep::Remove(VoterId(2))]));
    }

    #[test]
    fn a_voter_that_forgot_comes_back_on_its_host_and_its_old_id_goes() {
        let mut members = three();
        let wish = Wish::Add { host: HostName::new("b").expect("a name"), replaces: Some(VoterId(2)) };
        let b = info(9, "b");
        let by_a_person = next(&view(&members, &[1, 2, 3]), &wish, Some(&b), false);
        assert!(matches!(by_a_person, Verdict::Refuse(_)), "{by_a_person:?}");
        let by_itself = next(&view(&members, &[1, 2, 3]), &wish, Some(&b), true);
        assert_eq!(by_itself, Verdict::Propose(vec![MemberStep::AddLearner(b.clone())]));
        members.learners.insert(b.id, b.clone());
        let steps = view(&members, &[1, 3, 9]).promotion(|_| None);
        assert_eq!(steps, Some(vec![MemberStep::AddVoter(b), MemberStep::Remove(VoterId(2))]));
    }

    #[test]
    fn a_removal_that_would_leave_no_majority_is_refused_whatever_is_said() {
        let members = three();
        let wish = |id, anyway| Wish::Remove { voter: VoterId(id), anyway };
        let only_one_answers = next(&view(&members, &[1]), &wish(3, true), None, false);
        assert!(matches!(only_one_answers, Verdict::Refuse(_)), "{only_one_answers:?}");
        let two_left = next(&view(&members, &[1, 2]), &wish(3, false), None, false);
        assert!(matches!(two_left, Verdict::Refuse(_)), "{two_left:?}");
        let said = next(&view(&members, &[1, 2]), &wish(3, true), None, false);
        assert_eq!(said, Verdict::Propose(vec![MemberStep::Remove(VoterId(3))]));
    }

    #[test]
    fn nothing_changes_while_a_lease_is_waited_out_or_another_change_is_open() {
        let mut members = three();
        let d = info(9, "d");
        let mut waiting = view(&members, &[1, 2, 3]);
        waiting.awaited = Some("a@1".to_owned());
        assert!(matches!(next(&waiting, &add_d(None), Some(&d), false), Verdict::Wait(_)));
        let mut pending = view(&members, &[1, 2, 3]);
        pending.is_pending = true;
        assert!(matches!(next(&pending, &add_d(None), Some(&d), false), Verdict::Wait(_)));
        members.learners.insert(d.id, d);
        let mut ready = view(&members, &[1, 2, 3, 9]);
        assert!(ready.promotion(|_| None).is_some());
        ready.awaited = Some("a@1".to_owned());
        assert_eq!(ready.promotion(|_| None), None);
    }

    #[test]
    fn a_host_outside_the_spec_and_an_eighth_voter_are_refused() {
        let members = three();
        assert!(matches!(next(&view(&members, &[1, 2, 3]), &add_d(None), None, false), Verdict::Refuse(_)));
        let seven = Membership {
            voters: half(&[(1, "a"), (2, "b"), (3, "c"), (4, "e"), (5, "f"), (6, "g"), (7, "h")]),
            ..Membership::default()
        };
        let verdict = next(&view(&seven, &[1, 2, 3, 4]), &add_d(None), Some(&info(9, "d")), false);
        assert!(matches!(verdict, Verdict::Refuse(_)), "{verdict:?}");
    }
}
