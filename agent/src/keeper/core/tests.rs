//! The keeper's order in data cases (`testdata/keeper/*.txt`), and each planted fault caught by one of them.
//!
//! A case file is a conversation: a block of commands, `----`, what the core did. Spans are in milliseconds; W is
//! 1000, δ_hw 50, δ_io 20, so a pet at n needs E_h ≥ n + 2050. `new` is a keeper that has just started, `rested` one
//! that rests at 20. `BLESS=1` rewrites the answers.

use super::*;
use quorum::id::Era;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const MS: u64 = 1_000_000;
const BOOT: BootId = BootId([1; 16]);
const OTHER: u8 = 9;

fn params(instance: u8) -> Params {
    Params {
        boot: BOOT,
        instance: KeeperInstance([instance; 16]),
        watchdog_worst: Duration::from_millis(1000),
        delta_hw: Duration::from_millis(50),
        delta_io: Duration::from_millis(20),
        lease_max: Duration::from_millis(60_000),
    }
}

/// An obedient driver around a core: what it orders happens, unless a case says that something is stuck.
struct Bench {
    core: Core,
    instance: u8,
    record: RecordView,
    facts: Facts,
    lost: SliceSeen,
    processes_die: bool,
    freeze_works: bool,
    helpers_answer: bool,
    helpers_rearm: bool,
}

impl Bench {
    fn new() -> Self {
        let slice = SliceSeen { empty: true, frozen: false, bare: true };
        Self {
            core: Core::restarted(params(1), None, HostEpoch::default()),
            instance: 1,
            record: RecordView::Absent,
            facts: Facts {
                slice: Some(slice),
                helpers: Helpers::Ready,
                device: Device::Good,
                may_close_late: false,
                pins_settled: u64::MAX,
            },
            lost: slice,
            processes_die: true,
            freeze_works: true,
            helpers_answer: true,
            helpers_rearm: true,
        }
    }

    /// A keeper that has found nothing to end and rests, at 20 ms.
    fn at_rest() -> Self {
        let mut bench = Self::new();
        bench.at(Moment::from_ns(0));
        bench.at(Moment::from_ns(20 * MS));
        assert_eq!(bench.core.phase(), Phase::Rest);
        bench
    }

    /// The slice, to be changed; what is done to one that can't be read is lost.
    fn slice(&mut self) -> &mut SliceSeen {
        self.lost = SliceSeen { empty: false, frozen: false, bare: false };
        self.facts.slice.as_mut().unwrap_or(&mut self.lost)
    }

    /// Steps until the core would wait; gives what it ordered.
    fn at(&mut self, now: Moment) -> String {
        let mut said = String::new();
        for _ in 0..12 {
            let mut facts = self.facts;
            if facts.pins_settled == u64::MAX {
                facts.pins_settled = match self.record {
                    RecordView::Whole(head) => head.sequence,
                    RecordView::Absent | RecordView::Torn => 0,
                };
            }
            let action = self.core.step(now, self.record, &facts);
            said.push_str(&self.perform(action));
            if matches!(action, Action::Pet | Action::Withhold) {
                return said;
            }
            said.push_str(", ");
        }
        said + "and so on"
    }

    fn perform(&mut self, action: Action) -> String {
        match action {
            Action::SetUp => {
                self.facts.device = Device::Good;
                "set up".into()
            }
            Action::Freeze => {
                self.slice().frozen |= self.freeze_works;
                "freeze".into()
            }
            Action::Kill => {
                self.slice().empty |= self.processes_die;
                if self.facts.helpers == Helpers::Ready {
                    self.facts.helpers = if self.helpers_answer { Helpers::Done } else { Helpers::Running };
                }
                "kill".into()
            }
            Action::Sweep => {
                self.slice().bare = true;
                "sweep".into()
            }
            Action::Attest(he) => format!("attest {he}"),
            Action::Thaw(he) => {
                *self.slice() = SliceSeen { empty: true, frozen: false, bare: false };
                if self.helpers_rearm {
                    self.facts.helpers = Helpers::Ready;
                }
                format!("thaw {he}")
            }
            Action::Pet => "pet".into(),
            Action::Withhold => "withhold".into(),
        }
    }

    fn line(&self) -> String {
        let phase = match self.core.phase() {
            Phase::Clearing(_) => "clearing".to_owned(),
            Phase::Settling(_) => "settling".to_owned(),
            Phase::Rest => "rest".to_owned(),
            Phase::Thawing(head, _) => format!("thawing {}", head.he),
            Phase::Armed(head) => format!("armed {}", head.he),
        };
        let mut line = phase;
        let _ = write!(line, " retired={} echoed={}", self.core.retired(), self.core.echoed());
        if self.core.reason() != Reason::None {
            let _ = write!(line, " because {}", self.core.reason().text());
        }
        line
    }

    /// Performs one command of a case; gives its line of the answer, if it has one.
    fn command(&mut self, text: &str) -> Option<String> {
        let mut words = text.split_whitespace();
        let verb = words.next().expect("a verb");
        let rest: Vec<&str> = words.collect();
        match verb {
            "at" => {
                let ms: u64 = rest[0].parse().expect("milliseconds");
                let raw = value(&rest, "raw").unwrap_or(ms);
                let said = self.at(Moment { boot_ns: ms * MS, raw_ns: raw * MS });
                return Some(format!("{ms}: {said} | {}", self.line()));
            }
            "record" => self.record = self.parse_record(&rest),
            "restart" => self.restart(&rest),
            "upgrade" => return Some(self.upgrade()),
            "slice" => self.set_slice(rest[0]),
            "helpers" => self.set_helpers(rest[0]),
            "device" => self.facts.device = device(rest[0]),
            "holder" => self.facts.may_close_late = rest[0] == "gone",
            "pins" => self.facts.pins_settled = rest[0].parse().expect("a sequence"),
            _ => panic!("no command {text:?}"),
        }
        None
    }

    fn parse_record(&self, words: &[&str]) -> RecordView {
        match words.first() {
            Some(&"none") => return RecordView::Absent,
            Some(&"torn") => return RecordView::Torn,
            Some(_) | None => {}
        }
        let until = value(words, "until").unwrap_or(0);
        let raw = value(words, "until-raw").unwrap_or(until);
        let era = Era(value(words, "era").unwrap_or(1) as u16);
        let foreign = |what: &str| words.contains(&what);
        RecordView::Whole(Head {
            era,
            he: HostEpoch::in_era(era, value(words, "he").expect("he=")),
            boot: if foreign("other-boot") { BootId([OTHER; 16]) } else { BOOT },
            instance: KeeperInstance([if foreign("other-keeper") { OTHER } else { self.instance }; 16]),
            expiry: Moment { boot_ns: until * MS, raw_ns: raw * MS },
            sequence: value(words, "seq").expect("seq="),
        })
    }

    fn restart(&mut self, words: &[&str]) {
        self.instance += 1;
        let found = match self.record {
            RecordView::Whole(head) => Some(head),
            RecordView::Absent | RecordView::Torn => None,
        };
        let floor = HostEpoch::in_era(Era(1), value(words, "floor").unwrap_or(0));
        let floor = if floor.count() == 0 { HostEpoch::default() } else { floor };
        self.core = Core::restarted(params(self.instance), found, floor);
        self.facts.helpers = Helpers::Ready;
    }

    fn upgrade(&mut self) -> String {
        match self.core.save() {
            Some(saved) => {
                self.core = Core::resumed(self.core.params().clone(), &saved);
                format!("upgraded | {}", self.line())
            }
            None => "upgrade has to wait".into(),
        }
    }

    fn set_slice(&mut self, word: &str) {
        match word {
            "populated" => *self.slice() = SliceSeen { empty: false, bare: false, ..*self.slice() },
            "visited" => self.slice().bare = false,
            "stuck" => self.processes_die = false,
            "free" => (self.processes_die, self.freeze_works) = (true, true),
            "thaws" => (self.slice().frozen, self.freeze_works) = (false, false),
            "unreadable" => self.facts.slice = None,
            "readable" => self.facts.slice = Some(SliceSeen { empty: false, frozen: false, bare: false }),
            _ => panic!("no state of the slice {word:?}"),
        }
    }

    fn set_helpers(&mut self, word: &str) {
        match word {
            "slow" => self.helpers_answer = false,
            "quick" => self.helpers_answer = true,
            "done" => self.facts.helpers = Helpers::Done,
            "lost" => self.facts.helpers = Helpers::Lost,
            "spent" => (self.facts.helpers, self.helpers_rearm) = (Helpers::Spent, false),
            _ => panic!("no state of the helpers {word:?}"),
        }
    }
}

fn device(word: &str) -> Device {
    match word {
        "unset" => Device::Unset,
        "good" => Device::Good,
        "failed" => Device::Failed,
        "missing" => Device::Missing,
        _ => panic!("no state of the device {word:?}"),
    }
}

fn value(words: &[&str], key: &str) -> Option<u64> {
    let word = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
    Some(word.parse().unwrap_or_else(|_| panic!("{key}={word} is no number")))
}

/// The case file with the answers that this program gives.
fn answered(text: &str) -> String {
    let mut bench = Bench::new();
    let (mut out, mut answer, mut in_answer) = (String::new(), String::new(), false);
    for line in text.lines() {
        match line {
            "----" => {
                out.push_str("----\n");
                out.push_str(&std::mem::take(&mut answer));
                in_answer = true;
            }
            "" => {
                in_answer = false;
                out.push('\n');
            }
            _ if in_answer => {}
            "new" => {
                bench = Bench::new();
                out.push_str("new\n");
            }
            "rested" => {
                bench = Bench::at_rest();
                out.push_str("rested\n");
            }
            _ => {
                if !line.starts_with('#')
                    && let Some(said) = bench.command(line)
                {
                    answer.push_str(&said);
                    answer.push('\n');
                }
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/keeper");
    let mut cases: Vec<_> = std::fs::read_dir(dir).expect("cases").map(|entry| entry.expect("entry").path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "there are cases");
    cases
}

#[test]
fn every_case_is_answered_as_written() {
    for case in cases() {
        let text = std::fs::read_to_string(&case).expect("a case");
        let said = answered(&text);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&case, &said).expect("blessed");
        } else {
            assert_eq!(said, text, "{case:?} (BLESS=1 rewrites it; bless only what you can explain)");
        }
    }
}

#[test]
fn a_resumed_core_decides_as_the_old_one_would_have() {
    let mut bench = Bench::at_rest();
    bench.command("record he=1 seq=1 until=5000");
    bench.at(Moment::from_ns(30 * MS));
    let saved = bench.core.save().expect("armed");
    let resumed = Core::resumed(bench.core.params().clone(), &saved);
    assert_eq!(resumed, bench.core);
}

#[test]
fn a_pet_may_come_as_late_as_the_watchdog_allows_and_the_host_still_ends_before_its_lease() {
    // The check passes at its last possible moment; a pause of W between check and pet, and W more to the reset.
    let mut bench = Bench::at_rest();
    bench.command("record he=1 seq=1 until=5000");
    let check = 5000 - 2050;
    assert!(bench.at(Moment::from_ns(check * MS)).ends_with("pet"));
    let (pause, fire, delta_hw) = (1000, 1000, 50);
    assert!(check + pause + fire + delta_hw <= 5000);
    assert!(bench.at(Moment::from_ns(check * MS + 1)).starts_with("freeze"));
}

/// Each fault makes some case answer otherwise.
#[cfg(feature = "mutants")]
#[test]
fn every_planted_fault_changes_the_answer_of_a_case() {
    const FAULTS: [&str; 14] = [
        "keeper.attests_before_io",
        "keeper.close_keeps_two",
        "keeper.echoes_refused",
        "keeper.echoes_unsettled",
        "keeper.forgets_latch",
        "keeper.ignores_helpers",
        "keeper.pets_at_w",
        "keeper.pets_before_verify",
        "keeper.restart_forgets_found",
        "keeper.rests_open",
        "keeper.skips_verify",
        "keeper.takes_foreign",
        "keeper.takes_stale",
        "lease.pet_trusts_one_clock",
    ];
    for fault in FAULTS {
        let planted = quorum::mutants::plant(fault);
        let caught = cases().into_iter().find(|case| {
            let text = std::fs::read_to_string(case).expect("a case");
            std::panic::catch_unwind(|| answered(&text)).is_ok_and(|said| said != text)
        });
        drop(planted);
        assert!(caught.is_some(), "{fault} is caught by no case");
        println!("{fault}: caught by {:?}", caught.expect("caught").file_name().expect("a name"));
    }
}
