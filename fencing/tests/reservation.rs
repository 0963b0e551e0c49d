//! Reservations against a model of a target: the claim's order, what makes it fail, targets that can't abort or persist,
//! registrations that get lost. Real targets (LIO, tgt) are in `tests/fencing/`.

#[expect(dead_code, reason = "contract.rs uses the rest of the model")]
mod unit;

use fencing::device::reservation::claim::{Aptpl, Memory, Policy, Volume};
use fencing::device::reservation::scsi::{Path, Sort};
use fencing::key::{KeyEpoch, ReservationKey, VolumeClaim};
use fencing::reading::Access;
use fencing::trouble::Trouble;
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use unit::{Nexus, Shared, Unit};

struct Lab {
    unit: Arc<Shared>,
    memory: Memory,
    policy: Policy,
    nexuses: Vec<u32>,
}

fn key(host: u16, epoch: u64) -> ReservationKey {
    ReservationKey::new(7, host, KeyEpoch::new(1, epoch).unwrap()).unwrap()
}

const VICTIM: u16 = 10;
const US: u16 = 20;

impl Lab {
    /// A unit that host 10 holds under epoch 4, over two paths; we have two paths of our own.
    fn new() -> Self {
        let unit = Unit {
            keys: BTreeMap::from([(1, key(VICTIM, 4).raw()), (2, key(VICTIM, 4).raw())]),
            held: Some((1, 5)),
            can_abort: true,
            can_persist: true,
            attentions: BTreeMap::from([(11, 2), (12, 1)]),
            ..Unit::default()
        };
        let policy = Policy { sort: Sort::RegistrantsOnly, aptpl: Aptpl::Prefer, drain: Duration::from_secs(3600) };
        Self { unit: Shared::new(unit), memory: Memory::default(), policy, nexuses: vec![11, 12] }
    }

    fn unit(&self) -> MutexGuard<'_, Unit> {
        self.unit.lock()
    }

    fn volume(&self) -> Volume {
        let path = |number: &u32| {
            let nexus = Nexus { number: *number, unit: self.unit.clone() };
            (format!("path-{number}"), Box::new(nexus) as Box<dyn Path>)
        };
        Volume { paths: self.nexuses.iter().map(path).collect(), policy: self.policy }
    }

    fn claim(&mut self, claim: &VolumeClaim) -> Result<(), Trouble> {
        let mut volume = self.volume();
        volume.claim(claim, &mut self.memory, &|| Ok(()))
    }

    fn look(&mut self, claim: &VolumeClaim) -> Access {
        let mut volume = self.volume();
        volume.look(claim, &mut self.memory).unwrap()
    }

    fn why(&mut self, claim: &VolumeClaim) -> String {
        match self.look(claim) {
            Access::Possible(why) => why,
            Access::Excluded => panic!("it isn't excluded: {:?}", self.unit()),
        }
    }
}

fn claim() -> VolumeClaim {
    VolumeClaim { own: key(US, 5), victims: [key(VICTIM, 4)].into() }
}

#[test]
fn the_victim_is_excluded_over_every_path_and_what_it_had_under_way_is_aborted() {
    let mut lab = Lab::new();
    assert!(lab.why(&claim()).contains("is registered"));
    lab.claim(&claim()).unwrap();
    assert_eq!(lab.look(&claim()), Access::Excluded);
    let unit = lab.unit();
    assert_eq!(unit.keys, BTreeMap::from([(11, key(US, 5).raw()), (12, key(US, 5).raw())]));
    assert_eq!(unit.aborted, [key(VICTIM, 4).raw()]);
    assert!(unit.aptpl, "the last REGISTER decides");
}

#[test]
fn it_registers_before_it_reads_the_keys_that_decide() {
    let mut lab = Lab::new();
    lab.claim(&claim()).unwrap();
    let commands = lab.unit().commands.clone();
    let last_register = commands.iter().rposition(|command| *command == (0x5f, 0)).unwrap();
    let preempt = commands.iter().position(|command| *command == (0x5f, 5)).unwrap();
    assert!(commands[last_register..preempt].contains(&(0x5e, 0)), "{commands:x?}");
}

#[test]
fn a_larger_epoch_makes_us_the_late_one() {
    let mut lab = Lab::new();
    lab.unit().keys.insert(3, key(30, 6).raw());
    let trouble = lab.claim(&claim()).unwrap_err();
    assert!(matches!(trouble, Trouble::Overtaken { .. }), "{trouble}");
    let keys: Vec<u64> = lab.unit().keys.values().copied().collect();
    assert_eq!(keys, [key(VICTIM, 4).raw(), key(VICTIM, 4).raw(), key(30, 6).raw()], "ours must be taken back");
}

#[test]
fn an_unknown_key_is_never_pre_empted_and_its_reservation_is_left_alone() {
    let mut lab = Lab::new();
    let stranger = ReservationKey::from_raw(0xdead_beef);
    {
        let mut unit = lab.unit();
        unit.keys.insert(3, stranger.raw());
        unit.held = Some((3, 5));
    }
    let trouble = lab.claim(&claim()).unwrap_err();
    assert!(trouble.to_string().contains("doesn't name it"), "{trouble}");
    assert!(lab.unit().keys.values().any(|key| *key == stranger.raw()));
    assert!(lab.why(&claim()).contains("the reservation is"));
}

#[test]
fn a_key_of_the_fenced_host_that_the_order_does_not_name_keeps_it_from_being_excluded() {
    // One of its paths kept the registration of an older grant: over that one it writes on.
    let mut lab = Lab::new();
    lab.policy.drain = Duration::ZERO;
    lab.unit().keys.insert(2, key(VICTIM, 3).raw());
    lab.claim(&claim()).unwrap();
    assert!(lab.unit().keys.values().any(|one| *one == key(VICTIM, 3).raw()), "it was pre-empted without a name");
    assert!(lab.why(&claim()).contains("doesn't name"));
    let named = VolumeClaim { own: key(US, 5), victims: [key(VICTIM, 3), key(VICTIM, 4)].into() };
    lab.claim(&named).unwrap();
    assert_eq!(lab.look(&named), Access::Excluded);
}

#[test]
fn without_abort_a_plain_preempt_counts_only_after_the_drain_time() {
    let mut lab = Lab::new();
    lab.unit().can_abort = false;
    lab.claim(&claim()).unwrap();
    assert!(lab.why(&claim()).contains("under way"), "in-flight writes may still land");
    lab.policy.drain = Duration::ZERO; // as if it had passed
    assert_eq!(lab.look(&claim()), Access::Excluded);
}

#[test]
fn a_victim_that_was_gone_already_is_waited_for_as_well() {
    // Who removed its key, and whether that aborted anything, isn't known.
    let mut lab = Lab::new();
    lab.unit().keys.clear();
    lab.unit().held = None;
    lab.claim(&claim()).unwrap();
    assert!(lab.why(&claim()).contains("under way"));
}

#[test]
fn a_lost_registration_is_reported_and_never_renewed() {
    let mut lab = Lab::new();
    lab.claim(&claim()).unwrap();
    {
        // A target that lost its power and kept nothing.
        let mut unit = lab.unit();
        unit.keys.clear();
        unit.held = None;
    }
    assert!(lab.why(&claim()).contains("was lost"));
    let trouble = lab.claim(&claim()).unwrap_err();
    assert!(trouble.to_string().contains("never renewed"), "{trouble}");
    assert!(lab.unit().keys.is_empty(), "it was registered again");
}

#[test]
fn a_registration_lost_over_one_of_two_paths_is_reported_and_never_renewed() {
    let mut lab = Lab::new();
    lab.claim(&claim()).unwrap();
    lab.unit().keys.remove(&12);
    assert!(lab.why(&claim()).contains("lost over a path"));
    let trouble = lab.claim(&claim()).unwrap_err();
    assert!(trouble.to_string().contains("over path-12 was lost"), "{trouble}");
    assert!(!lab.unit().keys.contains_key(&12), "it was registered again");
    // A target that goes on listing the key of a session that has ended.
    lab.unit().keys.insert(99, key(US, 5).raw());
    assert!(lab.why(&claim()).contains("lost over a path"), "the list alone was believed");
}

#[test]
fn a_path_that_lost_its_registration_is_not_excluded() {
    let mut lab = Lab::new();
    lab.claim(&claim()).unwrap();
    lab.unit().held = None;
    assert!(lab.why(&claim()).contains("no reservation"));
}

#[test]
fn claiming_twice_changes_nothing() {
    let mut lab = Lab::new();
    lab.claim(&claim()).unwrap();
    lab.claim(&claim()).unwrap();
    assert_eq!(lab.look(&claim()), Access::Excluded);
}

#[test]
fn our_own_older_key_is_replaced_by_name() {
    let mut lab = Lab::new();
    lab.unit().keys.insert(11, key(US, 2).raw());
    lab.claim(&claim()).unwrap();
    assert_eq!(lab.look(&claim()), Access::Excluded);
    assert!(!lab.unit().keys.values().any(|one| *one == key(US, 2).raw()));
}

#[test]
fn persistence_is_required_where_the_policy_says_so() {
    let mut lab = Lab::new();
    lab.policy.aptpl = Aptpl::Require;
    lab.unit().can_persist = false;
    let trouble = lab.claim(&claim()).unwrap_err();
    assert!(matches!(trouble, Trouble::Unusable { .. }), "{trouble}");
    lab.policy.aptpl = Aptpl::Prefer;
    lab.claim(&claim()).unwrap();
    assert!(!lab.unit().aptpl);
}

#[test]
fn a_check_that_refuses_keeps_the_unit_untouched() {
    let mut lab = Lab::new();
    let before = lab.unit().keys.clone();
    let mut volume = lab.volume();
    let refuse = || Err(Trouble::Overtaken { because: "a newer task".into() });
    volume.claim(&claim(), &mut lab.memory, &refuse).unwrap_err();
    assert_eq!(lab.unit().keys, before);
    assert!(lab.unit().commands.iter().all(|(code, _)| *code == 0x5e), "{:x?}", lab.unit().commands);
}

#[test]
fn all_registrants_hold_it_together() {
    let mut lab = Lab::new();
    lab.policy.sort = Sort::AllRegistrants;
    lab.unit().held = Some((1, 7));
    lab.claim(&claim()).unwrap();
    assert_eq!(lab.look(&claim()), Access::Excluded);
}
