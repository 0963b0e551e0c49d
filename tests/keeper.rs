//! The keeper and the lab chassis, live: real processes, cgroups, sockets, signals and namespaces. Needs root and a
//! cgroup2 mount with freeze and kill; what is missing fails the run with its name.
//!
//! The chassis plays the hardware. A run in which it was late beyond the watchdog's margin proves nothing in either
//! direction: it is repeated, at most twice, and never green.

mod keeper {
    pub mod bench;
    pub mod chassis;
    pub mod fire;
    pub mod lease;
    pub mod quiet;
    pub mod restart;
    pub mod upgrade;
}
