//! Lines about the cluster and its hosts.

use super::args::{Args, group, host, host_epoch, index, list, site, span, stamp};
use super::people::{decision, initiator};
use super::world::World;
use quorum::id::{BootId, DeviceName, Era, GroupName, HardwareId, KeeperInstance, TaskId, VoterId};
use quorum::ledger::{
    Bootstrap, Class, Command, Evidence, Exclusion, FenceOutcome, HostAdmitted, HypervisorReading, Incarnation,
    Isolation, Lost, LostCause, LostScope, Observation, PowerReading, RetiredBecause, SuspectReport, Verdict,
    WatchdogAttestation,
};
use quorum::roster::ConfigId;
use quorum::timing::{Measured, Timing};
use std::time::Duration;

impl World {
    pub fn host_command(&self, args: &Args<'_>) -> Option<Command> {
        Some(match args.verb() {
            "noop" => Command::Noop,
            "bootstrap" => Command::Bootstrap(Bootstrap {
                cluster: site("erp-geo"),
                lab: args.has("lab"),
                timing: timing(args),
                by: decision(args),
            }),
            "timing" => Command::SetTiming { timing: timing(args), by: decision(args) },
            "admit" => Command::HostAdmitted(self.admission(args)),
            "lost" => self.loss(args),
            "retired" => self.retirement(args),
            "expired" => Command::Expired {
                voter: VoterId(index(args.word(0)).0),
                of: self.incarnation(args.word(1)),
                config: self.config(args),
            },
            "evidence" => Command::Evidence(self.evidence(args)),
            "fence-open" => Command::FenceTaskOpened {
                of: self.incarnation(args.word(0)),
                deadline: args.span("deadline", Duration::from_secs(20)),
                initiator: initiator(args),
            },
            "fence-start" => Command::FenceTaskStarted { task: self.task(args), executor: host(args.word(1)) },
            "fence-finish" => Command::FenceTaskFinished {
                task: self.task(args),
                executor: host(args.word(1)),
                outcome: FenceOutcome::Cancelled,
            },
            "fence-cancel" => Command::FenceTaskCancel { task: self.task(args), because: "proven".to_owned() },
            "fence-expire" => {
                Command::FenceTaskExpired { task: self.task(args), waited: args.span("waited", Duration::ZERO) }
            }
            "remove-host" => Command::HostRemoved { host: host(args.word(0)), by: decision(args) },
            "supports" => {
                Command::Supports { host: host(args.word(0)), version: args.word(1).parse().expect("version") }
            }
            "version" => {
                Command::ClusterVersion { version: args.word(0).parse().expect("version"), by: decision(args) }
            }
            _ => return None,
        })
    }

    /// `0` is the newest task, `15.0` a certain one.
    fn task(&self, args: &Args<'_>) -> TaskId {
        let newest = || *self.ledger.tasks().keys().next_back().expect("a task");
        TaskId::parse(args.word(0)).unwrap_or_else(newest)
    }

    fn config(&self, args: &Args<'_>) -> ConfigId {
        let now = self.ledger.config_id();
        args.get("config").map_or(now, |at| ConfigId { era: now.era, index: index(at) })
    }

    fn admission(&self, args: &Args<'_>) -> HostAdmitted {
        let name = args.word(0);
        let next = self.ledger.next_host_epoch(&host(name));
        let he = args.get("he").map_or(next, host_epoch);
        let class = match args.get("class").unwrap_or("A") {
            "A" => Class::A,
            "B" => Class::B,
            "C" => Class::C,
            "D" => Class::D,
            other => panic!("class {other:?}"),
        };
        let watchdog = WatchdogAttestation {
            driver: "iTCO_wdt".to_owned(),
            worst: args.span("worst", Duration::from_millis(1_100)),
            fire_tests: u32::try_from(args.number("fires", 3)).expect("small"),
            conditions_hold: !args.has("no-nowayout"),
        };
        HostAdmitted {
            of: Incarnation { host: host(name), he },
            boot: BootId(stamp(args.get("boot").unwrap_or(&format!("{name}-b{he}")))),
            instance: KeeperInstance(stamp(args.get("instance").unwrap_or(&format!("{name}-k{he}")))),
            class,
            watchdog: (!args.has("no-watchdog")).then_some(watchdog),
            hardware: HardwareId(stamp(args.get("hardware").unwrap_or(name))),
            lab: args.has("lab"),
        }
    }

    /// `lost tk1 tk2 reports=2,3`: as voters 2 and 3 report at once; `2:hears`, `1:abstains`, `2:suspects:900ms`.
    fn loss(&self, args: &Args<'_>) -> Command {
        let flags = ["operator"];
        let named: Vec<&str> = args.words_from(0).into_iter().filter(|word| !flags.contains(word)).collect();
        // More hosts than a story can name.
        let times = usize::try_from(args.number("times", 1)).expect("a count");
        let hosts: Vec<Incarnation> =
            (0..times).flat_map(|_| named.iter().map(|text| self.incarnation(text))).collect();
        let cause = if args.has("operator") {
            LostCause::Operator(decision(args))
        } else {
            LostCause::Automatic {
                scope: args.get("site").map_or(LostScope::Hosts, |name| LostScope::Site(site(name))),
                reports: list(args.get("reports").unwrap_or("2,3")).into_iter().map(report).collect(),
                since_previous: args.span("since", Duration::ZERO),
                suspected_for: Duration::from_millis(350),
            }
        };
        Command::Lost(Lost { hosts, cause })
    }

    fn retirement(&self, args: &Args<'_>) -> Command {
        let of = self.incarnation(args.word(0));
        let state = self.ledger.incarnation(&of);
        let boot = state.and_then(|state| state.boot).unwrap_or_default();
        let instance = state.and_then(|state| state.instance).unwrap_or_default();
        let boot = args.get("boot").map_or(boot, |text| BootId(stamp(text)));
        let because = match args.word(1) {
            "attested" => RetiredBecause::KeeperAttested { boot, era: self.era(args) },
            "answered" => RetiredBecause::Answered {
                boot,
                instance: args.get("instance").map_or(instance, |text| KeeperInstance(stamp(text))),
                drawn_at: args.get("drawn").map_or(self.ledger.applied(), index),
            },
            other => panic!("retired {other:?}"),
        };
        Command::Retired { of, because }
    }

    fn era(&self, args: &Args<'_>) -> Era {
        Era(u16::try_from(args.number("era", u64::from(self.ledger.era().0))).expect("small"))
    }

    fn evidence(&self, args: &Args<'_>) -> Evidence {
        let of = self.incarnation(args.word(1));
        let observed = match args.word(0) {
            "powered-off" => power(&of, args),
            "released" => self.release(&of, args),
            "returned" => self.return_of(&of, args),
            "hypervisor-off" => Observation::HypervisorOff {
                group: group(args.get("group").unwrap_or("erp")),
                reading: HypervisorReading {
                    source: "esx".to_owned(),
                    reads: u32::try_from(args.number("reads", 2)).expect("small"),
                    agent_contained: !args.has("uncontained"),
                    pending_starts: u32::try_from(args.number("pending", 0)).expect("small"),
                    detached: !args.has("attached"),
                    automatic_start_off: !args.has("autostart"),
                },
            },
            "storage-excluded" => Observation::StorageExcluded {
                volumes: list(args.get("volumes").unwrap_or("erp-root,erp-log"))
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                exclusion: exclusion(args),
                isolation: isolation(args),
            },
            other => panic!("evidence {other:?}"),
        };
        Evidence { of, observed, observer: host("os1"), lab: args.has("lab") }
    }

    fn release(&self, of: &Incarnation, args: &Args<'_>) -> Observation {
        let state = self.ledger.incarnation(of);
        let boot = state.and_then(|state| state.boot).unwrap_or_default();
        let instance = state.and_then(|state| state.instance).unwrap_or_default();
        Observation::Released {
            boot: args.get("boot").map_or(boot, |text| BootId(stamp(text))),
            instance: args.get("instance").map_or(instance, |text| KeeperInstance(stamp(text))),
            groups: groups(args.get("groups").unwrap_or("erp")),
            era: self.era(args),
            named: args.get("named").map_or(of.he, host_epoch),
        }
    }

    fn return_of(&self, of: &Incarnation, args: &Args<'_>) -> Observation {
        let hardware = args.get("hardware").unwrap_or(of.host.as_str());
        Observation::Returned {
            boot: BootId(stamp(args.get("boot").unwrap_or("a-new-boot"))),
            hardware: HardwareId(stamp(hardware)),
            drawn_at: args.get("drawn").map_or(self.ledger.applied(), index),
            remnants: groups(args.get("remnants").unwrap_or_default()),
            armed: args.get("armed").map(host_epoch),
        }
    }
}

fn groups(text: &str) -> Vec<GroupName> {
    list(text).into_iter().map(group).collect()
}

fn timing(args: &Args<'_>) -> Timing {
    let mut timing =
        Timing::derive(Measured::new(args.span("watchdog", Duration::from_millis(1_100)), Duration::from_millis(40)));
    timing.lease = args.span("lease", timing.lease);
    timing.delta_io = args.span("delta-io", timing.delta_io);
    timing
}

fn report(text: &str) -> SuspectReport {
    let mut parts = text.split(':');
    let voter = VoterId(index(parts.next().expect("voter")).0);
    let verdict = match parts.next().unwrap_or("suspects") {
        "suspects" => Verdict::Suspects,
        "hears" => Verdict::Hears,
        "abstains" => Verdict::Abstains,
        other => panic!("verdict {other:?}"),
    };
    let age = parts.next().map_or(Duration::from_millis(50), span);
    SuspectReport { voter, age, verdict }
}

fn power(of: &Incarnation, args: &Args<'_>) -> Observation {
    let own = format!("bmc-{}", of.host);
    let named = list(args.get("devices").unwrap_or(&own)).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let reading = |name: &String| PowerReading {
        device: DeviceName::new(name).expect("device name"),
        reads: u32::try_from(args.number("reads", 2)).expect("small"),
        apart: args.span("apart", Duration::from_secs(1)),
        identity_matches: !args.has("another-machine"),
    };
    Observation::PoweredOff { readings: named.iter().map(reading).collect() }
}

fn exclusion(args: &Args<'_>) -> Exclusion {
    let every_path = !args.has("some-paths");
    let keys_read_back = !args.has("unread");
    match args.get("by").unwrap_or("preempt-abort") {
        "preempt-abort" => Exclusion::PreemptAndAbort { every_path, keys_read_back },
        "preempt" => Exclusion::Preempt {
            every_path,
            keys_read_back,
            drained: args.span("drained", Duration::ZERO),
            io_timeout: Duration::from_secs(30),
        },
        "mapping" => Exclusion::MappingRemoved { read_back: keys_read_back },
        "role" => Exclusion::ReplicaRoleTaken { source_write_blocked: keys_read_back },
        other => panic!("exclusion {other:?}"),
    }
}

fn isolation(args: &Args<'_>) -> Option<Isolation> {
    match args.get("isolation").unwrap_or("none") {
        "none" => None,
        "network" => Some(Isolation::Network { device: DeviceName::new("switch-1").expect("device name") }),
        "addresses" => Some(Isolation::EpochCheckedAddresses),
        other => panic!("isolation {other:?}"),
    }
}
