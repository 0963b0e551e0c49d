//! One program for all targets: libFuzzer calls the one that `FUZZ_TARGET` names.
//!
//! `FUZZ_SEEDS=folder` writes the target's seeds there instead, `FUZZ_LIST=1` lists the targets. One more target,
//! `planted`, has a fault that only a fuzzer which is led by coverage finds: `make fuzz` begins with it.
#![no_main]

use antipode::fuzzing::{Target, targets};
use libfuzzer_sys::fuzz_target;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory that one input may take at once. Inputs are shorter than 64 KiB, so it is a thousand times as much.
const GROWTH_BYTES_MAX: usize = 64 << 20;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator, which ends the process beyond the limit: growth is a finding.
struct Counting;

// SAFETY: every call is the system allocator's own; what is counted changes nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        if live > LIMIT.load(Ordering::Relaxed) {
            LIMIT.store(usize::MAX, Ordering::Relaxed);
            panic!("this input makes the target take {live} bytes");
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let planted: Target = ("planted", planted, || vec![vec![0; 4]]);
    let found = targets().chain([planted]).find(|(name, _, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("there is no target {wanted:?}: FUZZ_LIST=1 lists them"))
});

/// Each byte is a branch of its own: by chance alone all four would take longer than anybody waits.
fn planted(bytes: &[u8]) -> bool {
    let right = bytes.iter().zip(b"fuzz").take_while(|(have, want)| std::hint::black_box(have) == want).count();
    for reached in 0..right {
        step(reached);
    }
    assert!(right < 4, "the planted fault");
    false
}

/// Something that coverage tells apart.
#[inline(never)]
fn step(reached: usize) {
    match reached {
        0 => std::hint::black_box(10),
        1 => std::hint::black_box(21),
        2 => std::hint::black_box(32),
        3 => std::hint::black_box(43),
        4 => std::hint::black_box(54),
        5 => std::hint::black_box(65),
        _ => std::hint::black_box(76),
    };
}

fn begin() {
    if std::env::var_os("FUZZ_LIST").is_some() {
        targets().for_each(|(name, _, _)| println!("{name}"));
        std::process::exit(0);
    }
    let (name, run, seeds) = *TARGET;
    let Some(folder) = std::env::var_os("FUZZ_SEEDS") else {
        // Whatever is made once for the process is made now, and doesn't count as an input's.
        for seed in seeds() {
            run(&seed);
        }
        return;
    };
    std::fs::create_dir_all(&folder).expect("a folder for seeds");
    for (number, seed) in seeds().iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("{name}-{number}")), seed).expect("a seed is written");
    }
    std::process::exit(0);
}

fuzz_target!(init: begin(), |bytes: &[u8]| {
    let (_, run, _) = *TARGET;
    LIMIT.store(LIVE.load(Ordering::Relaxed).saturating_add(GROWTH_BYTES_MAX), Ordering::Relaxed);
    let _is_accepted = std::hint::black_box(run(bytes));
    LIMIT.store(usize::MAX, Ordering::Relaxed);
});
