//! Claims about the holder's side.

use super::*;
use crate::lease::holder::{Given, Holder, Ignored, expiry};
use crate::timing::{Measured, Timing};

const AGENT: AgentInstance = AgentInstance([9; 16]);

fn timing() -> Timing {
    Timing::derive(Measured::new(Duration::from_millis(1_100), Duration::from_millis(40)))
}

fn holder(voters: &[u64]) -> Holder {
    let mut holder = Holder::new(host(), claim(), AGENT, S(1));
    holder.set_voters(ids(voters).into_iter());
    holder
}

fn grant_for(request: &LeaseRequest, voter: u64, index: u64, list: &[u64]) -> Grant {
    Grant {
        voter: VoterId(voter),
        config: config(index),
        voters: ids(list),
        outgoing: Vec::new(),
        lease: S(10),
        host: request.host.clone(),
        host_epoch: request.claim.host_epoch,
        nonce: request.nonce,
    }
}

/// Asks at `now` and returns the request that went to `voter`.
fn ask(holder: &mut Holder, now: Moment, voter: u64) -> LeaseRequest {
    let due = holder.requests_due(now);
    due.into_iter().find(|(to, _)| *to == VoterId(voter)).expect("a request to that voter is due").1
}

fn give(holder: &mut Holder, now: Moment, grant: Grant) -> Result<(), Ignored> {
    let from = grant.voter;
    holder.answer(now, from, &Answer::Grant(grant))
}

/// A holder that asked voters 1 to 3 at second 5 and was answered by all of them at second 6.
fn held(list: &[u64]) -> Holder {
    let mut holder = holder(list);
    for (to, request) in holder.requests_due(at(5)) {
        give(&mut holder, at(6), grant_for(&request, to.0, 4, list)).expect("counted");
    }
    holder
}

pub(super) fn broken_claims() -> Vec<&'static str> {
    let mut claims = Claims::default();
    claims.hold("expiry_counts_from_the_sending", held(&[1, 2, 3]).expires_at() == Some(at(15)));
    members_claims(&mut claims);
    admission_claims(&mut claims);
    configuration_claims(&mut claims);
    reserve_claims(&mut claims);
    claims.0
}

fn members_claims(claims: &mut Claims) {
    let mut holder = holder(&[1, 2, 3, 4]);
    let requests: BTreeMap<u64, LeaseRequest> =
        holder.requests_due(at(5)).into_iter().map(|(to, request)| (to.0, request)).collect();
    let foreign = give(&mut holder, at(6), grant_for(&requests[&4], 4, 4, &[1, 2, 3]));
    claims.hold("a_learners_grant_is_ignored", foreign == Err(Ignored::NotMember));
    let _ = give(&mut holder, at(6), grant_for(&requests[&1], 1, 4, &[1, 2, 3]));
    claims.hold("one_of_three_is_no_majority", holder.expires_at().is_none());
    let posing = holder.answer(at(6), VoterId(3), &Answer::Grant(grant_for(&requests[&2], 2, 4, &[1, 2, 3])));
    claims.hold("a_grant_counts_only_for_its_sender", posing == Err(Ignored::NotMember));

    let joint = [(1, 9), (2, 8), (4, 7)].map(|(id, sent)| (VoterId(id), Given { sent: at(sent), lease: S(10) }));
    let (incoming, outgoing) = (ids(&[1, 2, 4]), ids(&[1, 3, 5]));
    let one_half = expiry([&incoming, &outgoing], &BTreeMap::from(joint));
    claims.hold("a_joint_configuration_needs_both_halves", one_half.is_none());
}

fn admission_claims(claims: &mut Claims) {
    let mut earlier = Holder::new(host(), claim(), AgentInstance([8; 16]), S(1));
    earlier.set_voters(ids(&[1, 2, 3]).into_iter());
    let old = ask(&mut earlier, at(1), 1);
    let mut holder = holder(&[1, 2, 3]);
    let request = ask(&mut holder, at(5), 1);
    let stale = give(&mut holder, at(6), grant_for(&old, 1, 4, &[1, 2, 3]));
    claims.hold("an_answer_to_an_earlier_agent_is_ignored", stale == Err(Ignored::OtherAgent));
    let other = Grant { host_epoch: he(6), ..grant_for(&request, 1, 4, &[1, 2, 3]) };
    claims.hold("another_admissions_grant_is_ignored", give(&mut holder, at(6), other) == Err(Ignored::OtherHostEpoch));
    let mut era = grant_for(&request, 1, 4, &[1, 2, 3]);
    era.config.era = Era(2);
    claims.hold("another_eras_grant_is_ignored", give(&mut holder, at(6), era) == Err(Ignored::OtherHostEpoch));
}

fn configuration_claims(claims: &mut Claims) {
    let mut holder = holder(&[1, 2, 3]);
    let due = holder.requests_due(at(5));
    let _ = give(&mut holder, at(6), grant_for(&due[0].1, 1, 4, &[1, 2, 3]));
    let _ = give(&mut holder, at(6), grant_for(&due[1].1, 2, 8, &[1, 2, 3]));
    claims.hold("grants_of_two_configurations_make_no_majority", holder.expires_at().is_none());

    let given = |sent, lease| Given { sent: at(sent), lease: S(lease) };
    let mixed = BTreeMap::from([(VoterId(1), given(9, 10)), (VoterId(2), given(8, 6)), (VoterId(3), given(1, 2))]);
    let expires = expiry([&ids(&[1, 2, 3]), &[]], &mixed);
    claims.hold("the_smallest_lease_of_the_majority_counts", expires == Some(at(14)));
}

fn reserve_claims(claims: &mut Claims) {
    let (timing, mut holder) = (timing(), held(&[1, 2, 3]));
    let last = at(15).minus(timing.watchdog_worst * 2 + timing.delta_hw);
    claims.hold("a_pet_leaves_two_fire_times", holder.may_pet(last, &timing));
    let late = last.plus(Duration::from_nanos(1));
    claims.hold("a_pet_one_nanosecond_later_is_refused", !holder.may_pet(late, &timing));
    let slept = Moment { boot_ns: late.boot_ns, raw_ns: at(6).raw_ns };
    claims.hold("sleep_counts_as_held", !holder.may_pet(slept, &timing));
    holder.stop_renewing();
    claims.hold("a_drained_holder_asks_no_more", holder.requests_due(at(20)).is_empty());
}

#[test]
fn every_claim_of_the_holders_side_holds() {
    assert_eq!(broken_claims(), Vec::<&str>::new());
}

#[test]
fn the_mth_newest_send_counts_on_each_clock() {
    let given = |boot, raw| Given { sent: Moment { boot_ns: boot, raw_ns: raw }, lease: Duration::from_nanos(100) };
    let sends = BTreeMap::from([(VoterId(1), given(50, 40)), (VoterId(2), given(30, 35)), (VoterId(3), given(10, 5))]);
    assert_eq!(expiry([&ids(&[1, 2, 3]), &[]], &sends), Some(Moment { boot_ns: 130, raw_ns: 135 }));
    let five = [&ids(&[1, 2, 3, 4, 5])[..], &[]];
    assert_eq!(expiry(five, &sends), Some(Moment { boot_ns: 110, raw_ns: 105 }));
    assert_eq!(expiry([&ids(&[1, 4, 5]), &[]], &sends), None);
}

#[test]
fn a_joint_expiry_is_that_of_the_worse_half() {
    let given = |sent| Given { sent: at(sent), lease: S(10) };
    let sends = BTreeMap::from([1, 2, 3, 4].map(|id| (VoterId(id), given(id))));
    let expires = expiry([&ids(&[1, 2, 4]), &ids(&[1, 2, 3])], &sends);
    assert_eq!(expires, Some(at(12)), "the second newest of 1, 2, 4 is 2 and of 1, 2, 3 is 2");
}

#[test]
fn a_beat_that_leaves_a_moment_early_still_carries_the_request_that_is_due() {
    let mut timing = timing();
    for (renewal_ms, beat_ms) in [(1_000, 1_000), (500, 50), (300, 100)] {
        (timing.renewal, timing.beat) = (Duration::from_millis(renewal_ms), Duration::from_millis(beat_ms));
        let mut holder = holder(&[1]);
        holder.set_renewal(timing.asks_every());
        let beat = |n: u64| at(5).plus(Duration::from_millis(n * beat_ms) - Duration::from_micros(n));
        let asked: Vec<u64> = (0..100).filter(|n| !holder.requests_due(beat(*n)).is_empty()).collect();
        let apart = renewal_ms / beat_ms;
        assert!(
            asked.windows(2).all(|pair| pair[1] - pair[0] == apart),
            "R {renewal_ms} ms, every {beat_ms}: {asked:?}"
        );
    }
}

#[test]
fn requests_are_due_every_renewal_to_every_voter_and_differ() {
    let mut holder = holder(&[1, 2]);
    let first = holder.requests_due(at(1));
    assert_eq!(first.len(), 2);
    assert!(holder.requests_due(at(1)).is_empty());
    assert_eq!(holder.deadline(), Some(at(2)));
    let second = holder.requests_due(at(2));
    assert_eq!(second.len(), 2);
    let nonces: BTreeSet<Nonce> = first.iter().chain(&second).map(|(_, request)| request.nonce).collect();
    assert_eq!(nonces.len(), 4);
}

#[test]
fn an_answer_counts_once_and_an_older_one_not_at_all() {
    let mut holder = holder(&[1]);
    let first = ask(&mut holder, at(1), 1);
    let second = ask(&mut holder, at(2), 1);
    assert_eq!(give(&mut holder, at(3), grant_for(&second, 1, 4, &[1])), Ok(()));
    assert_eq!(give(&mut holder, at(3), grant_for(&second, 1, 4, &[1])), Err(Ignored::UnknownRequest));
    assert_eq!(give(&mut holder, at(4), grant_for(&first, 1, 4, &[1])), Err(Ignored::UnknownRequest));
    assert_eq!(holder.expires_at(), Some(at(12)));
    assert_eq!(holder.ignored(), &BTreeMap::from([(Ignored::UnknownRequest, 2)]));
}

#[test]
fn a_request_to_one_voter_is_not_answered_by_another() {
    let mut holder = holder(&[1, 2]);
    let to_one = ask(&mut holder, at(1), 1);
    assert_eq!(give(&mut holder, at(2), grant_for(&to_one, 2, 4, &[1, 2])), Err(Ignored::UnknownRequest));
    let mut stranger = grant_for(&to_one, 1, 4, &[1, 2]);
    stranger.host = HostName::new("os-k1").unwrap();
    assert_eq!(give(&mut holder, at(2), stranger), Err(Ignored::OtherHost));
}

#[test]
fn voters_that_disagree_about_the_list_are_not_counted_together() {
    let mut holder = holder(&[1, 2, 3]);
    let due = holder.requests_due(at(5));
    assert_eq!(give(&mut holder, at(6), grant_for(&due[0].1, 1, 4, &[1, 2, 3])), Ok(()));
    assert_eq!(give(&mut holder, at(6), grant_for(&due[1].1, 2, 4, &[1, 2])), Err(Ignored::ListDiffers));
}

#[test]
fn the_largest_expiry_over_the_configurations_counts() {
    let mut holder = held(&[1, 2, 3]);
    for (to, request) in holder.requests_due(at(8)).into_iter().take(2) {
        give(&mut holder, at(8), grant_for(&request, to.0, 9, &[1, 2, 3])).unwrap();
    }
    assert_eq!(holder.expires_at(), Some(at(18)));
    assert_eq!(holder.left(at(11)), S(7));
    assert_eq!(holder.left(Moment { boot_ns: at(17).boot_ns, raw_ns: at(11).raw_ns }), S(1));
    assert_eq!(holder.left(at(19)), Duration::ZERO);
}

#[test]
fn old_configurations_and_unanswered_requests_do_not_pile_up() {
    let mut holder = holder(&[1]);
    for second in 1..500 {
        let request = ask(&mut holder, at(second), 1);
        if second % 2 == 0 {
            give(&mut holder, at(second), grant_for(&request, 1, second, &[1])).unwrap();
        }
    }
    assert_eq!(holder.expires_at(), Some(at(508)));
    assert!(format!("{holder:?}").len() < 4_000, "state grows with time");
    for second in 500..700 {
        ask(&mut holder, at(second), 1);
    }
    assert!(format!("{holder:?}").len() < 20_000, "state grows with silence");
}

#[test]
fn a_refusal_is_remembered_until_the_next_grant() {
    let mut holder = holder(&[1]);
    let request = ask(&mut holder, at(1), 1);
    let refuse = Answer::Refuse { voter: VoterId(1), nonce: request.nonce, reason: Refusal::HasEnded };
    assert_eq!(holder.answer(at(2), VoterId(1), &refuse), Ok(()));
    assert_eq!(holder.refused(), &BTreeMap::from([(VoterId(1), Refusal::HasEnded)]));
    assert_eq!(holder.answer(at(2), VoterId(2), &refuse), Err(Ignored::NotMember));
    give(&mut holder, at(3), grant_for(&request, 1, 4, &[1])).unwrap();
    assert!(holder.refused().is_empty());
}
