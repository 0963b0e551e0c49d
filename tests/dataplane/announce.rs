//! Announcements, seen by a neighbour's own table in a namespace of its own.

use super::bench::{need, run};
use antipode::network::{AnnounceError, Announcement, announce, announce_once};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const OLD: &str = "52:54:00:00:00:01";
const NEW: &str = "52:54:00:00:00:02";

/// A host with a bridge, and a neighbour on its segment.
struct Segment {
    host: String,
    neighbour: String,
}

impl Segment {
    fn new() -> Self {
        need("ip", "iproute2");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-{}", std::process::id() % 100_000, COUNT.fetch_add(1, Ordering::Relaxed));
        let segment = Self { host: format!("apa{tag}"), neighbour: format!("apn{tag}") };
        let (host, neighbour) = (&segment.host, &segment.neighbour);
        run(&["ip", "netns", "add", host]);
        run(&["ip", "netns", "add", neighbour]);
        let veth = ["link", "add", "port", "type", "veth", "peer", "name", "eth", "netns", neighbour];
        segment.ip(host, &veth);
        segment.ip(host, &["link", "add", "br0", "type", "bridge"]);
        segment.ip(host, &["link", "set", "port", "master", "br0", "up"]);
        segment.ip(host, &["link", "set", "br0", "up"]);
        segment.ip(neighbour, &["addr", "add", "10.99.0.1/24", "dev", "eth"]);
        segment.ip(neighbour, &["addr", "add", "fd99::1/64", "dev", "eth", "nodad"]);
        segment.ip(neighbour, &["link", "set", "eth", "up"]);
        segment
    }

    fn ip(&self, namespace: &str, args: &[&str]) -> String {
        run(&[&["ip", "-n", namespace], args].concat())
    }

    /// The neighbour has just talked to the old hardware address.
    fn neighbour_knows(&self, address: &str) {
        self.ip(&self.neighbour, &["neigh", "replace", address, "lladdr", OLD, "dev", "eth", "nud", "reachable"]);
    }

    fn neighbour_has(&self, address: &str, mac: &str) -> bool {
        self.ip(&self.neighbour, &["neigh", "show", address]).contains(mac)
    }

    /// Runs `work` in the host's namespace.
    fn at_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.host)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.neighbour] {
            let _ = std::process::Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

fn announcement(ip: &str) -> Announcement {
    Announcement { ip: ip.parse().unwrap(), interface: "br0".into(), mac: Some(NEW.parse().unwrap()) }
}

#[test]
fn a_neighbour_with_a_fresh_entry_learns_the_new_hardware_address() {
    let segment = Segment::new();
    for address in ["10.99.0.5", "fd99::5"] {
        segment.neighbour_knows(address);
        let start = Instant::now();
        // A port that has just been raised may drop the first ones: said again until heard.
        while !segment.neighbour_has(address, NEW) {
            assert!(start.elapsed() < Duration::from_secs(30), "{address} isn't known at {NEW}");
            segment.at_host(|| announce_once(&announcement(address))).unwrap();
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[test]
fn an_announcement_is_repeated_for_those_who_missed_it() {
    let segment = Segment::new();
    segment.neighbour_knows("10.99.0.5");
    let heard_again = segment.at_host(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let said = announcement("10.99.0.5");
            let mut announcing = announce(&said);
            let mut look = tokio::time::interval(Duration::from_millis(10));
            let mut forgotten = false;
            loop {
                tokio::select! {
                    biased;
                    _ = look.tick() => if segment.neighbour_has("10.99.0.5", NEW) {
                        if forgotten {
                            return true;
                        }
                        segment.neighbour_knows("10.99.0.5");
                        forgotten = true;
                    },
                    done = &mut announcing => {
                        done.unwrap();
                        return segment.neighbour_has("10.99.0.5", NEW);
                    }
                }
            }
        })
    });
    assert!(heard_again, "said once only");
}

#[test]
fn an_interface_that_is_not_here_is_named() {
    let said = Announcement { interface: "no-such-if".into(), ..announcement("10.99.0.5") };
    assert!(matches!(announce_once(&said), Err(AnnounceError::NoInterface(name)) if name == "no-such-if"));
}
