//! A keeper's quiet life: no memory is allocated, no page is fetched from a disk, nothing is late.

use super::bench::*;
use antipode::driver::clock;
use antipode::keeper::armed::ArmedSet;
use antipode::keeper::core::{Core, Params};
use antipode::keeper::driver::{Keeper, Parts};
use antipode::keeper::helper::Helpers;
use antipode::keeper::holder::HolderLink;
use antipode::keeper::slice::Slice;
use antipode::keeper::slots::{Mapping, SlotReader, SlotWriter};
use antipode::keeper::{PageState, Posture};
use quorum::id::{HostEpoch, KeeperInstance};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    COUNTING.with(|counting| {
        if counting.get() {
            COUNT.with(|count| count.set(count.get() + 1));
        }
    });
}

// SAFETY: passes everything on to the system's allocator; counting touches thread-local cells only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as promised by our caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A keeper in this very thread, with the chassis' watchdog and a slice of its own.
fn keeper_in(bench: &Bench) -> Keeper {
    let dir = bench.path("keeper");
    let map = |name: &str, capacity| Mapping::create(&dir.join(name), capacity).expect("mapped");
    let (record, page) = antipode::keeper::link::capacities();
    let params = Params {
        boot: clock::boot_id().expect("a boot id"),
        instance: KeeperInstance([7; 16]),
        watchdog_worst: W,
        delta_hw: DELTA_HW,
        delta_io: Duration::from_millis(20),
        lease_max: Duration::from_secs(60),
    };
    let parts = Parts {
        core: Core::restarted(params, None, HostEpoch::default()),
        slice: Slice::create(&bench.root()).expect("a slice"),
        helpers: Helpers::start(&[], LIMIT).expect("none"),
        holder: HolderLink::new(Some(&dir.join("holder.sock"))),
        spec: format!("lab:{}", bench.text("control.d/dog.sock")).parse().expect("a watchdog"),
        timeout: TIMEOUT,
        period: Duration::from_millis(100),
        look: Duration::from_millis(25),
        record: SlotReader::new(map("record", record)),
        page: SlotWriter::new(map("page", page)),
        posture: Posture::default(),
    };
    Keeper::new(parts, ArmedSet::default())
}

/// Turns the keeper until `state`, counting what it allocates on the way.
fn turn_until(keeper: &mut Keeper, what: &str, done: impl Fn(&Keeper) -> bool) -> u64 {
    let mut allocated = 0;
    let mut turns = 0;
    until(what, || {
        turns += 1;
        assert!(turns < 300, "no {what}: {:#?}", keeper.page());
        COUNT.set(0);
        COUNTING.set(true);
        let wait = keeper.turn();
        COUNTING.set(false);
        std::thread::park_timeout(wait);
        allocated += COUNT.get();
        done(keeper).then_some(())
    });
    allocated
}

#[test]
fn from_lease_to_lease_a_keeper_allocates_nothing() {
    valid(|| {
        let holder = [binary(), "holder", "--dir", "@/keeper"].map(str::to_owned).to_vec();
        let units = vec![Unit { name: "holder", argv: holder, restarts: true }];
        let bench = Bench::start(Options { units: Some(units), ..Options::default() });
        until("the holder", || bench.path("keeper/holder.sock").exists().then_some(()));
        let mut keeper = keeper_in(&bench);
        // Starting may allocate; what is counted begins when the watchdog is set up and held.
        turn_until(&mut keeper, "rest", |keeper| keeper.page().state == PageState::Idle && keeper.page().posture.held);
        let mut agent = bench.agent();
        for he in 1..=2 {
            let expiry = agent.hold(he, &["erp", "web"]);
            let armed = turn_until(&mut keeper, "arming", |keeper| keeper.page().armed == Some(epoch(he)));
            let guest = bench.run_in(he, "erp", STUBBORN);
            let end = expiry.minus(W * 2 + DELTA_HW);
            let petting = turn_until(&mut keeper, "the end", |_| clock::now().both_reached(end));
            let ending =
                turn_until(&mut keeper, "the attestation", |keeper| attested(keeper.page()) == Some(epoch(he)));
            assert_eq!((armed, petting, ending), (0, 0, 0), "allocations under host epoch {he}");
            assert_eq!(bench.ended(guest), Some(libc::SIGKILL));
        }
        assert_eq!(bench.fires(), 0);
    });
}

#[test]
fn a_running_keeper_is_locked_in_memory_and_fetches_nothing_from_a_disk() {
    valid(|| {
        let bench = Bench::start(Options::default());
        let mut agent = bench.agent();
        agent.arm(1, &["erp"]);
        let page = agent.page();
        assert!(page.posture.memory_locked && page.posture.realtime && page.posture.held, "{:?}", page.posture);
        let pid = bench.pids("keeper")[0];
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("a line");
        let locked: u64 = locked.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(locked > 1000, "{locked} kB are locked");
        assert!(status.contains("Threads:\t1\n"), "one thread");
        let before = major_faults(pid);
        let petted = agent.page().last_pet;
        bench.page_until("ten more pets", |page| page.last_pet.held_since(petted) > Duration::from_secs(1));
        assert_eq!(major_faults(pid), before);
    });
}

fn major_faults(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("readable");
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    rest.split_whitespace().nth(9).expect("a field").parse().expect("a number")
}
