//! Tests of the spans and their relations.

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

fn derived(watchdog_ms: u64, rtt_ms: u64) -> Timing {
    Timing::derive(Measured::new(MS(watchdog_ms), MS(rtt_ms)))
}

fn violated(timing: &Timing) -> Vec<Inequality> {
    timing.check().into_iter().map(|violation| violation.inequality).collect()
}

#[test]
fn the_published_leases_follow_from_the_watchdogs() {
    for (watchdog, lease) in [(1_100, 3_700), (2_200, 7_000), (3_300, 9_600)] {
        for rtt in [0, 1, 10, 40, 80] {
            let timing = derived(watchdog, rtt);
            assert_eq!(timing.lease, MS(lease), "W {watchdog} ms, RTT {rtt} ms");
            assert_eq!(timing.check(), []);
        }
    }
}

#[test]
fn the_published_detection_times_follow_from_the_round_trips() {
    for (rtt, detection) in [(10, 350), (40, 350), (80, 400)] {
        assert_eq!(derived(1_100, rtt).detection, MS(detection));
    }
}

#[test]
fn whatever_is_derived_passes_every_check() {
    for watchdog in (100..8_000).step_by(37) {
        for rtt in [0, 3, 80, 81, 137, 400, 1_900] {
            let mut timing = derived(watchdog, rtt);
            // A dog faster than a second does not exist; its keeper would have to look more often.
            timing.keeper_period = timing.keeper_period.min(timing.watchdog_worst / 2);
            timing.fit();
            assert_eq!(timing.check(), [], "W {watchdog} ms, RTT {rtt} ms");
        }
    }
}

#[test]
fn a_lease_is_never_rounded_down() {
    let mut timing = derived(1_100, 80);
    timing.watchdog_worst += Duration::from_nanos(1);
    timing.fit();
    assert_eq!(timing.lease, MS(3_800));
}

#[test]
fn the_voter_waits_for_the_slowest_holder_on_its_own_fastest_clock() {
    let terms = LeaseTerms { lease: MS(3_700), rho_ppm: 1_000, delta_io: MS(50) };
    // 3.7 s · 1.001 / 0.999 = 3.707407407… s, up to the next nanosecond, plus 50 ms.
    assert_eq!(terms.voter_wait(), Duration::from_nanos(3_707_407_408) + MS(50));
    let exact = LeaseTerms { rho_ppm: 0, ..terms };
    assert_eq!(exact.voter_wait(), MS(3_750));
    let absurd = LeaseTerms { rho_ppm: 1_000_000, ..terms };
    assert_eq!(absurd.voter_wait(), Duration::MAX);
}

#[test]
fn the_widest_terms_cover_each_part() {
    let long = LeaseTerms { lease: S(9), rho_ppm: 900, delta_io: MS(50) };
    let drifty = LeaseTerms { lease: S(4), rho_ppm: 2_000, delta_io: S(1) };
    let widest = long.widest(drifty);
    assert_eq!(widest, LeaseTerms { lease: S(9), rho_ppm: 2_000, delta_io: S(1) });
    assert!(widest.voter_wait() >= long.voter_wait().max(drifty.voter_wait()));
}

#[test]
fn ride_through_is_what_the_reserve_and_one_look_leave() {
    let timing = derived(1_100, 40);
    assert_eq!(timing.pet_reserve(), MS(2_250));
    assert_eq!(timing.ride_through(), MS(1_350));
    assert_eq!(timing.ride_through_sure(), MS(1_060));
    let three = Timing { watchdog_spans: 3, ..timing };
    assert_eq!(three.pet_reserve(), MS(3_350));
}

#[test]
fn declaration_modes_follow_the_voters_wait() {
    let timing = derived(1_100, 40);
    assert!(timing.eager_limit() < timing.voter_wait());
    assert_eq!(timing.lazy_declaration(MS(50)), timing.voter_wait() - MS(300));
    assert_eq!(timing.lazy_declaration(S(60)), timing.detection);
}

#[test]
fn what_the_lease_has_to_spare_is_all_that_it_has_to_spare() {
    for (watchdog_ms, rtt_ms) in [(1_100, 40), (1_100, 80), (1_100, 200), (2_200, 10), (16_500, 40)] {
        let mut timing = derived(watchdog_ms, rtt_ms);
        timing.lease -= timing.lease_spare();
        assert_eq!(violated(&timing), [], "{}", timing.describe());
        timing.lease -= Duration::from_nanos(1);
        assert_eq!(timing.lease_spare(), Duration::ZERO);
        assert!(violated(&timing).contains(&Inequality::Lease), "{}", timing.describe());
    }
}

/// Each relation, broken alone.
#[test]
fn every_relation_is_checked_and_named_when_broken() {
    let good = derived(1_100, 40);
    let cases: Vec<(Inequality, Timing)> = vec![
        (Inequality::WatchdogSpans, Timing { watchdog_spans: 4, lease: S(9), ..good.clone() }),
        (Inequality::Lease, Timing { jitter: MS(200), detection: S(1), ..good.clone() }),
        (Inequality::LostRenewals, Timing { lost_renewals: 2, ..good.clone() }),
        (Inequality::Periods, Timing { renewal: Duration::ZERO, ..good.clone() }),
        (Inequality::KeeperPeriod, Timing { keeper_period: MS(551), lease: S(9), ..good.clone() }),
        (Inequality::Drift, Timing { rho_ppm: 599, ..good.clone() }),
        (Inequality::Drift, Timing { rho_ppm: 100_001, ..good.clone() }),
        (Inequality::Detection, Timing { delay_max: MS(31), ..good.clone() }),
        (Inequality::LostBeats, Timing { lost_beats: 4, ..good.clone() }),
        (Inequality::Beat, Timing { beat: MS(19), ..good.clone() }),
        (Inequality::Election, Timing { fsync_p999: MS(81), ..good.clone() }),
        (Inequality::Range, Timing { delta_io: S(3_601), ..good.clone() }),
    ];
    for (inequality, timing) in cases {
        assert_eq!(violated(&timing), [inequality], "{}", timing.describe());
    }
    // With r >= 3 the lease's own relation leaves room for four renewals; without, the second one bites.
    let hasty = Timing { lost_renewals: 2, renewal: MS(338), ..good.clone() };
    assert_eq!(violated(&hasty), [Inequality::LostRenewals, Inequality::Renewal]);
    let unarmed = Timing { watchdog_worst: Duration::ZERO, ..good };
    assert_eq!(violated(&unarmed), [Inequality::WatchdogArmed]);
}

/// A voter's wait that is no longer than the lease is refused, too: it is the one relation that no figure can break.
#[test]
#[cfg(feature = "mutants")]
fn a_voter_that_waits_too_short_is_refused() {
    let _planted = crate::mutants::plant("lease.voter_wait_is_lease");
    assert_eq!(violated(&derived(1_100, 40)), [Inequality::VoterWait]);
}

#[test]
#[cfg(feature = "mutants")]
fn every_relation_that_is_checked_no_more_is_noticed() {
    std::panic::set_hook(Box::new(|_| {}));
    for inequality in Inequality::ALL {
        let _planted = crate::mutants::plant(inequality.fault());
        let tests = [every_relation_is_checked_and_named_when_broken, a_voter_that_waits_too_short_is_refused];
        let is_noticed = tests.into_iter().any(|test| std::panic::catch_unwind(test).is_err());
        assert!(is_noticed, "nothing notices {}", inequality.fault());
    }
}

#[test]
fn a_lease_one_nanosecond_short_is_refused() {
    let mut timing = derived(1_100, 80);
    timing.lease = timing.lease_needed();
    assert_eq!(timing.check(), []);
    timing.lease -= Duration::from_nanos(1);
    assert_eq!(violated(&timing), [Inequality::Lease]);
}

#[test]
fn all_violations_are_reported_at_once_with_a_remedy() {
    let timing = Timing { lease: S(1), lost_renewals: 0, rho_ppm: 0, lost_beats: 1, ..derived(3_300, 80) };
    let found = timing.check();
    assert_eq!(
        found.iter().map(|violation| violation.inequality).collect::<Vec<_>>(),
        [Inequality::Lease, Inequality::LostRenewals, Inequality::Renewal, Inequality::Drift, Inequality::LostBeats]
    );
    assert!(found.iter().all(|violation| !violation.remedy.is_empty()));
    assert!(found[0].to_string().contains("is L = 1s, must be >= 8.05s"), "{}", found[0]);
}

#[test]
fn absurd_figures_are_refused_without_overflow() {
    let timing = Timing { watchdog_worst: Duration::MAX, lease: Duration::MAX, ..derived(1_100, 40) };
    assert!(violated(&timing).contains(&Inequality::Range));
    let timing = derived(1_100, 40);
    assert!(!Timing { renewal: Duration::MAX, rtt_max: Duration::MAX, ..timing }.check().is_empty());
}

#[test]
fn the_table_shows_what_follows_and_what_is_wrong() {
    let good = derived(1_100, 40);
    let text = good.describe();
    assert!(text.contains("3757.408 ms"), "{text}");
    assert!(text.ends_with("every relation holds\n"), "{text}");
    let weak = Timing { lease: S(3), ..good };
    assert!(weak.describe().contains("VIOLATED L >= 2W"), "{}", weak.describe());
}
