//! Claims about the voter's side.

use super::*;
use crate::lease::voter::{Ended, Facts, VoterLease};
use crate::timing::LeaseTerms;

const ME: VoterId = VoterId(1);

/// L_v of exactly 10 s.
const TERMS: LeaseTerms = LeaseTerms { lease: Duration::from_secs(10), rho_ppm: 0, delta_io: Duration::ZERO };

fn facts(membership: &Membership) -> Facts<'_> {
    Facts {
        era: Era(1),
        admitted: Some(claim()),
        ended: None,
        configuration_pending: false,
        undecodable: false,
        config: config(4),
        membership,
        lease: S(10),
    }
}

fn request(claim: Claim) -> LeaseRequest {
    let nonce = Nonce { agent: AgentInstance([9; 16]), count: 3 };
    LeaseRequest { host: host(), claim, nonce }
}

fn ended() -> [Ended; 1] {
    [Ended { host: host(), host_epoch: he(7), terms: TERMS }]
}

fn refusal(claim: Claim, facts: &Facts<'_>) -> Option<Refusal> {
    match VoterLease::new(ME, at(0)).request(at(1), &request(claim), facts) {
        Answer::Grant(_) => None,
        Answer::Refuse { reason, .. } => Some(reason),
    }
}

/// Whether a voter that was prepared so says `Expired` at `second` and not just before.
fn first_speaks_at(lease: &VoterLease, second: u64) -> bool {
    let membership = members(&[1, 2, 3], &[], &[]);
    let speaks = |now: Moment| !lease.expired_due(now, &ended(), &facts(&membership)).is_empty();
    !speaks(at(second).minus(Duration::from_nanos(1))) && speaks(at(second))
}

/// A voter that started at 100 s and granted at 103 s.
fn granted() -> VoterLease {
    let membership = members(&[1, 2, 3], &[], &[]);
    let mut lease = VoterLease::new(ME, at(100));
    assert!(matches!(lease.request(at(103), &request(claim()), &facts(&membership)), Answer::Grant(_)));
    lease
}

pub(super) fn broken_claims() -> Vec<&'static str> {
    let mut claims = Claims::default();
    refusal_claims(&mut claims);
    admission_claims(&mut claims);
    wait_claims(&mut claims);
    clock_claims(&mut claims);
    claims.0
}

fn refusal_claims(claims: &mut Claims) {
    let three = members(&[1, 2, 3], &[], &[]);
    let learner = members(&[2, 3, 4], &[], &[1]);
    let good = facts(&three);
    claims.hold("a_good_request_is_granted", refusal(claim(), &good).is_none());
    let cases = [
        ("another_era_is_refused", Facts { era: Era(2), ..good }, Refusal::OtherEra),
        ("a_learner_never_grants", facts(&learner), Refusal::NotVoter),
        ("a_voter_that_cannot_decode_never_grants", Facts { undecodable: true, ..good }, Refusal::Undecodable),
        (
            "nothing_is_granted_while_a_configuration_waits",
            Facts { configuration_pending: true, ..good },
            Refusal::ConfigurationPending,
        ),
        ("an_ended_host_epoch_is_refused", Facts { ended: Some(he(7)), ..good }, Refusal::HasEnded),
        ("a_host_epoch_before_an_ended_one_is_refused", Facts { ended: Some(he(8)), ..good }, Refusal::HasEnded),
        ("an_unknown_host_is_refused", Facts { admitted: None, ..good }, Refusal::NotAdmitted),
    ];
    for (claim_name, facts, reason) in cases {
        claims.hold(claim_name, refusal(claim(), &facts) == Some(reason));
    }
    let earlier = Facts { ended: Some(he(6)), ..good };
    claims.hold("the_end_of_an_earlier_host_epoch_refuses_nothing", refusal(claim(), &earlier).is_none());
}

fn admission_claims(claims: &mut Claims) {
    let three = members(&[1, 2, 3], &[], &[]);
    let cases = [
        ("a_superseded_host_epoch_is_refused", Claim { host_epoch: he(6), ..claim() }, Refusal::Superseded),
        ("an_admission_not_yet_applied_is_refused", Claim { host_epoch: he(8), ..claim() }, Refusal::NotYetApplied),
        ("another_boot_is_refused", Claim { boot: BootId([3; 16]), ..claim() }, Refusal::OtherBoot),
        ("another_keeper_is_refused", Claim { instance: KeeperInstance([3; 16]), ..claim() }, Refusal::OtherInstance),
    ];
    for (claim_name, claim, reason) in cases {
        claims.hold(claim_name, refusal(claim, &facts(&three)) == Some(reason));
    }
}

fn wait_claims(claims: &mut Claims) {
    claims.hold("a_voter_waits_after_its_own_last_grant", first_speaks_at(&granted(), 113));
    claims.hold("a_voter_that_restarted_waits_the_whole_lease", first_speaks_at(&VoterLease::new(ME, at(100)), 110));
    let mut changed = granted();
    changed.on_configuration_applied(at(108));
    claims.hold("an_applied_configuration_restarts_every_wait", first_speaks_at(&changed, 118));
    let mut installed = granted();
    installed.on_snapshot_installed(at(109));
    claims.hold("an_installed_snapshot_restarts_every_wait", first_speaks_at(&installed, 119));
    let mut jumped = granted();
    jumped.on_clock_jump(at(107));
    claims.hold("a_clock_jump_restarts_every_wait", first_speaks_at(&jumped, 117));
    let mut admitted = VoterLease::new(ME, at(100));
    admitted.on_admitted(at(104), &host());
    claims.hold("a_wait_begins_no_earlier_than_the_admission", first_speaks_at(&admitted, 114));

    let membership = members(&[1, 2, 3], &[], &[]);
    let terms = LeaseTerms { rho_ppm: 1_000, delta_io: Duration::from_millis(50), ..TERMS };
    let ended = [Ended { terms, ..ended()[0].clone() }];
    let early = at(103).plus(terms.lease.mul_f64(1.001 / 0.999));
    let said = granted().expired_due(early, &ended, &facts(&membership));
    claims.hold("a_voter_allows_for_drift_and_late_writes", said.is_empty());
}

fn clock_claims(claims: &mut Claims) {
    let membership = members(&[1, 2, 3], &[], &[]);
    let slept = Moment { boot_ns: at(900).boot_ns, raw_ns: at(112).raw_ns };
    let said = granted().expired_due(slept, &ended(), &facts(&membership));
    claims.hold("sleep_does_not_count_as_waited", said.is_empty());
    let mut suspect = granted();
    suspect.on_clock_suspect(at(104));
    let said = suspect.expired_due(at(900), &ended(), &facts(&membership));
    claims.hold("a_voter_whose_clock_is_suspect_abstains", said.is_empty());
    suspect.on_clock_trusted(at(200));
    claims.hold("time_on_a_suspect_clock_does_not_count", first_speaks_at(&suspect, 210));
}

#[test]
fn every_claim_of_the_voters_side_holds() {
    assert_eq!(broken_claims(), Vec::<&str>::new());
}

#[test]
fn a_grant_says_what_the_voter_has_applied() {
    let joint = members(&[1, 2, 4], &[1, 2, 3], &[5]);
    let answer = VoterLease::new(ME, at(0)).request(at(1), &request(claim()), &facts(&joint));
    let Answer::Grant(grant) = answer else { panic!("refused: {answer:?}") };
    assert_eq!((grant.voters, grant.outgoing), (ids(&[1, 2, 4]), ids(&[1, 2, 3])));
    assert_eq!((grant.voter, grant.config, grant.lease), (ME, config(4), S(10)));
    assert_eq!((grant.host, grant.host_epoch, grant.nonce), (host(), he(7), request(claim()).nonce));
}

#[test]
fn every_refusal_reason_has_a_text_of_its_own() {
    let texts: BTreeSet<String> = Refusal::ALL.iter().map(Refusal::to_string).collect();
    assert_eq!(texts.len(), Refusal::ALL.len());
}

#[test]
fn expired_names_the_applied_configuration_and_is_said_again_until_applied() {
    let three = members(&[1, 2, 3], &[], &[]);
    let (lease, facts) = (granted(), facts(&three));
    let said = lease.expired_due(at(113), &ended(), &facts);
    assert_eq!(said, [Expired { voter: ME, host: host(), host_epoch: he(7), config: config(4) }]);
    assert_eq!(lease.expired_due(at(120), &ended(), &facts), said);
    assert_eq!(lease.deadline(&ended()), Some(at(113)));
    assert_eq!(lease.deadline(&[]), None);
}

#[test]
fn a_member_without_a_vote_or_with_work_to_apply_says_nothing() {
    let (three, learner) = (members(&[1, 2, 3], &[], &[]), members(&[2, 3, 4], &[], &[1]));
    let lease = granted();
    assert_eq!(lease.expired_due(at(900), &ended(), &facts(&learner)), []);
    for quiet in [Facts { configuration_pending: true, ..facts(&three) }, Facts { undecodable: true, ..facts(&three) }]
    {
        assert_eq!(lease.expired_due(at(900), &ended(), &quiet), []);
    }
}

#[test]
fn a_refused_request_prolongs_nothing() {
    let three = members(&[1, 2, 3], &[], &[]);
    let mut lease = granted();
    let after_end = Facts { ended: Some(he(7)), ..facts(&three) };
    assert!(matches!(lease.request(at(110), &request(claim()), &after_end), Answer::Refuse { .. }));
    assert!(first_speaks_at(&lease, 113));
}

#[test]
fn a_moment_from_before_moves_no_wait_back() {
    let three = members(&[1, 2, 3], &[], &[]);
    let mut lease = granted();
    lease.on_configuration_applied(at(90));
    let _ = lease.request(at(101), &request(claim()), &facts(&three));
    assert!(first_speaks_at(&lease, 113));
}
