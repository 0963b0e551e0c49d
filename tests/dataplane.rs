//! The data plane on real components: QEMU, qemu-storage-daemon, TLS, bridges. Needs root and Debian's packages
//! qemu-system-x86, qemu-utils, strace, iproute2, python3; a missing one fails the run with its name.
//!
//! No guest operating system is booted here: drives are written through QEMU's own monitor, which is quick and says
//! exactly when a write was answered. What guests see is the live suites' business.

mod dataplane {
    pub mod adapter;
    pub mod announce;
    pub mod bench;
    pub mod mirror;
    pub mod pair;
    #[cfg(feature = "mutants")]
    pub mod planted;
    pub mod refusals;
    pub mod resync;
    pub mod workload;
}
