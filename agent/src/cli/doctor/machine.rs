//! The machine: clocks, watchdog, disk, ports, memory, kernel.

use super::{Finding, State};
use crate::config::AgentConfig;
use nix::sys::socket::{getsockopt, sockopt};
use serde_json::Value;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Less room than this on the data directory's disk stops a voter before long.
const ROOM_BYTES_MIN: u64 = 1 << 30;
/// So many small durable writes are timed.
const WRITES: usize = 40;
/// Election timeouts are at least five times the slowest write (protocol §3); without an agent its default is taken.
const ELECTION_DEFAULT_MS: f64 = 800.0;

fn file(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The lease rests on clock rates: a source that stands still or jumps with the host is told.
pub(super) fn clocks() -> Vec<Finding> {
    const CHECK: &str = "clocks";
    let source = file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let finding = match source.as_deref() {
        Some("tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" | "xen") => {
            Finding::good(CHECK, format!("the kernel counts by {}", source.unwrap_or_default()))
        }
        Some(other) => {
            let text = format!("the kernel counts by {other}: slow, and coarse on some machines");
            Finding::other(CHECK, State::Weak, (text, "see the kernel's log for why tsc was given up"))
        }
        None => Finding::other(CHECK, State::Unknown, ("the clock source can't be read", "")),
    };
    vec![finding]
}

/// A lease proves something only with an armed watchdog behind it.
pub(super) fn watchdog(config: Option<&AgentConfig>) -> Vec<Finding> {
    const CHECK: &str = "watchdog";
    let mut findings = Vec::new();
    let keeper = config.and_then(|config| config.keeper.as_ref());
    match keeper {
        None => {
            let text = "no keeper is configured: this host is of class D and its lease proves nothing";
            findings.push(Finding::other(
                CHECK,
                State::Weak,
                (text, "add [keeper] to agent.toml and start antipode keeper"),
            ));
        }
        Some(keeper) if keeper.fire_tests == 0 => {
            let text = "no fire test is recorded: the watchdog was never seen to reset this host";
            let next = "antipode keeper --fire-test, then keeper.fire_tests in agent.toml";
            findings.push(Finding::other(CHECK, State::Weak, (text, next)));
        }
        Some(keeper) => findings.push(Finding::good(CHECK, format!("{} fire tests are recorded", keeper.fire_tests))),
    }
    if let Some(keeper) = keeper {
        findings.push(match crate::keeper::PageReader::open(&keeper.dir).and_then(|mut reader| reader.page()) {
            Ok(page) => Finding::good(CHECK, format!("the keeper answers: {}", page.reason.text())),
            Err(error) => {
                let text = format!("the keeper's page can't be read: {error}");
                Finding::other(CHECK, State::Bad, (text, "systemctl status antipode-keeper"))
            }
        });
    }
    match file("/sys/class/watchdog/watchdog0/nowayout").as_deref() {
        Some("1") => findings.push(Finding::good(CHECK, "the device can't be disarmed by closing it")),
        Some(_) => {
            let text = "the device has nowayout 0: whoever closes it disarms it";
            findings.push(Finding::other(CHECK, State::Weak, (text, "load its module with nowayout=1")));
        }
        None => {
            let text = "no watchdog device is seen by the kernel";
            findings.push(Finding::other(CHECK, State::Weak, (text, "load the machine's watchdog module, or softdog")));
        }
    }
    findings
}

/// Room, and how long a durable write takes beside the election timeout.
pub(super) fn disk(config: &AgentConfig, timing: Option<&Value>) -> Vec<Finding> {
    const CHECK: &str = "disk";
    let dir = &config.data_dir;
    let mut findings = Vec::new();
    match rustix::fs::statvfs(dir) {
        Ok(room) => {
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            let text = format!("{} MiB are free at {}", free >> 20, dir.display());
            findings.push(if free < ROOM_BYTES_MIN {
                Finding::other(CHECK, State::Bad, (text, "make room: a voter that can't write ends itself"))
            } else {
                Finding::good(CHECK, text)
            });
        }
        Err(error) => {
            let text = format!("look at {}: {error}", dir.display());
            findings.push(Finding::other(CHECK, State::Bad, (text, "create the data directory on a local disk")));
            return findings;
        }
    }
    let election = timing.and_then(|timing| timing["timing"]["election"].as_f64()).unwrap_or(ELECTION_DEFAULT_MS);
    findings.push(match slowest_write(dir) {
        Ok(slowest) => {
            let ms = slowest.as_secs_f64() * 1e3;
            let text = format!("the slowest of {WRITES} durable writes took {ms:.1} ms");
            if ms * 5.0 > election {
                let next = "use a disk with power-loss protection, or raise cluster.timing.election";
                Finding::other(
                    CHECK,
                    State::Weak,
                    (format!("{text}: too slow for an election timeout of {election} ms"), next),
                )
            } else {
                Finding::good(CHECK, text)
            }
        }
        Err(error) => {
            let text = format!("no durable write is possible at {}: {error}", dir.display());
            Finding::other(CHECK, State::Bad, (text, "run as the agent's user, or give it the folder"))
        }
    });
    findings
}

fn slowest_write(dir: &Path) -> std::io::Result<Duration> {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let timed = || {
        let mut file = std::fs::File::create(&path)?;
        let mut slowest = Duration::ZERO;
        for _ in 0..WRITES {
            let began = Instant::now();
            file.write_all(&[0; 512])?;
            file.sync_data()?;
            slowest = slowest.max(began.elapsed());
        }
        Ok(slowest)
    };
    let slowest = timed();
    // Removed also after a failure; one that was never made is gone already.
    let _gone = std::fs::remove_file(&path);
    slowest
}

/// A running agent holds its ports; without one they must be free.
pub(super) fn ports(config: &AgentConfig, is_running: bool) -> Vec<Finding> {
    const CHECK: &str = "ports";
    if is_running {
        return vec![Finding::good(CHECK, "the agent holds them")];
    }
    let of = |address: &std::net::SocketAddr| match std::net::UdpSocket::bind(address) {
        Ok(_free) => Finding::good(CHECK, format!("{address} (UDP) is free")),
        Err(error) => {
            let next = "stop what holds it, or correct network.listen in agent.toml";
            Finding::other(CHECK, State::Bad, (format!("{address} (UDP): {error}"), next))
        }
    };
    config.listen.iter().map(of).collect()
}

/// Whether the agent that answers at this socket has its memory locked, as the kernel says.
pub(super) fn memory(socket: &Path) -> Option<Finding> {
    let stream = UnixStream::connect(socket).ok()?;
    let agent = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
    Some(locked(&file(&format!("/proc/{}/status", agent.pid()))?))
}

/// What a process's status in /proc says of it.
fn locked(status: &str) -> Finding {
    const CHECK: &str = "memory";
    match status.lines().find_map(|line| line.strip_prefix("VmLck:")).map(str::trim) {
        Some("0 kB") => {
            let text = "the agent's memory isn't locked: where the machine runs short of it, the agent is late, and its host may \
                        be held for lost";
            let next = "LimitMEMLOCK=infinity in the agent's unit, as make install puts it there; systemctl restart antipode-agent";
            Finding::other(CHECK, State::Weak, (text, next))
        }
        Some(_) => Finding::good(CHECK, "the agent's memory is locked"),
        None => {
            Finding::other(CHECK, State::Unknown, ("the kernel doesn't say whether the agent's memory is locked", ""))
        }
    }
}

/// Settings without which the keeper can't do its work, or does it less well.
pub(super) fn kernel() -> Vec<Finding> {
    const CHECK: &str = "kernel";
    let mut findings = Vec::new();
    findings.push(if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Finding::good(CHECK, "cgroups of version 2 are mounted")
    } else {
        let next = "boot with systemd.unified_cgroup_hierarchy=1";
        Finding::other(
            CHECK,
            State::Bad,
            ("cgroups of version 2 are not mounted: nothing could be killed as a whole", next),
        )
    });
    findings.push(match file("/proc/sys/kernel/panic").and_then(|text| text.parse::<i64>().ok()) {
        Some(0) => {
            let text = "a panicked kernel stays as it is until the watchdog resets it";
            Finding::other(CHECK, State::Weak, (text, "sysctl kernel.panic=1"))
        }
        Some(seconds) => Finding::good(CHECK, format!("a panicked kernel restarts (kernel.panic={seconds})")),
        None => Finding::other(CHECK, State::Unknown, ("kernel.panic can't be read", "")),
    });
    let states = file("/sys/power/state").unwrap_or_default();
    findings.push(if states.split_whitespace().any(|state| matches!(state, "mem" | "disk" | "standby")) {
        let text = format!("the machine can sleep ({states}): a sleeping host's watchdog may sleep, too");
        let next = "systemctl mask sleep.target suspend.target hibernate.target hybrid-sleep.target";
        Finding::other(CHECK, State::Weak, (text, next))
    } else {
        Finding::good(CHECK, "the machine has no sleep state")
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_whose_memory_the_machine_may_write_out_is_weak() {
        let said = |status: &str| locked(status).state;
        assert_eq!(said("Name:\tantipode\nVmLck:\t       0 kB\nVmRSS:\t   12 kB\n"), State::Weak);
        assert_eq!(said("Name:\tantipode\nVmLck:\t  361540 kB\n"), State::Good);
        assert_eq!(said("Name:\tantipode\n"), State::Unknown);
    }

    #[test]
    fn it_is_the_process_behind_the_socket_that_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("admin.sock");
        assert!(memory(&socket).is_none(), "nobody listens");
        let _listens = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        let own = locked(&file("/proc/self/status").expect("/proc"));
        assert_eq!(memory(&socket).map(|finding| finding.state), Some(own.state));
    }
}
