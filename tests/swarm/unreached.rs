//! What the swarm can't reach, each with the reason: no cell of the coverage table is empty without one.
//!
//! A rule that is listed here is refused in a story of the ledger instead (`quorum/testdata/ledger`), which a test below
//! looks for, and each rule is broken once there (`every_broken_rule_changes_a_story`).

use quorum::ledger::EvidenceKind;

const FOUNDED: &str =
    "the swarm's clusters are founded before the first fault, and stay in their era with their voters";
const SPEC: &str =
    "the spec of a run is applied once, and it is a good one; hosts and groups are neither added nor removed";
const HARDWARE: &str = "hosts keep their machine, their watchdog and their class, and all are of one world";
const LEADER: &str =
    "a leader proposes from a ledger that holds everything committed before its term, so it never asks for this";
const SPEAKER: &str = "who speaks checks the same thing first, at the same index, and says it only of itself";
const PERSON: &str = "the agent that is asked refuses the order before it is proposed";
const RARE: &str =
    "two proposals would have to meet within one commit: ten thousand seeds didn't make them, the stories do";
const KIND: &str = "nobody in the swarm asks for it: pins are ordered in stories of their own (agent/src/sim/pin_tests.rs), live migration, hypervisors and storage exclusion have their rules in the ledger only";

/// Refusal rules that no run reaches.
pub const RULES: [(&str, &[&str]); 8] = [
    (
        FOUNDED,
        &[
            "not-bootstrapped",
            "already-bootstrapped",
            "wrong-era",
            "lease-of-older-era",
            "keeper-armed",
            "era-not-newer",
            "majority-alive",
            "version-not-higher",
            "version-unsupported",
            "expired-old-config",
            "expired-from-stranger",
            "report-from-stranger",
            "config-awaits-lease",
            "host-is-voter",
        ],
    ),
    (
        SPEC,
        &[
            "timing-too-weak",
            "spec-revision-not-next",
            "spec-invalid",
            "unknown-host",
            "unknown-group",
            "unknown-site",
            "unknown-device",
            "group-exists",
            "group-in-use",
            "host-still-admitted",
            "host-in-use",
            "absent-not-asked",
            "adopt-only-source",
            "no-end",
        ],
    ),
    (HARDWARE, &["wrong-hardware", "watchdog-missing", "watchdog-slower", "lab-only", "remnant-found"]),
    (
        LEADER,
        &[
            "still-admitted",
            "admission-uncovered",
            "fence-task-unfinished",
            "no-hosts",
            "too-many-hosts",
            "report-twice",
            "report-stale",
            "still-heard",
            "too-few-reports",
            "too-few-domains",
            "site-incomplete",
            "not-of-site",
            "brake-on",
            "nonce-too-old",
            "not-lost",
            "epoch-not-next",
            "target-not-absent",
            "owner-unproven",
            "target-held",
            "tier-asks",
            "hold-off-runs",
            "activation-held",
            "not-in-place",
            "grant-needs-plan",
            "plan-mismatch",
            "parked",
            "has-volumes",
            "other-generation",
            "not-in-sync",
            "copy-disagrees",
            "not-attested",
            "loss-too-large",
            "loss-not-accepted",
            "plan-shape",
            "before-pivot",
            "intent-is-open",
            "move-to-itself",
            "not-a-place",
            "step-not-skippable",
        ],
    ),
    (RARE, &["already-stopped", "failback-unsafe", "same-person"]),
    (
        SPEAKER,
        &[
            "lease-not-ended",
            "expired-twice",
            "evidence-too-early",
            "wrong-target",
            "read-once",
            "reads-too-close",
            "level-incomplete",
            "released-other-boot",
            "released-other-keeper",
            "released-other-epoch",
            "returned-same-boot",
            "task-unknown",
            "task-over",
            "task-not-cancelled",
            "task-deadline-runs",
            "executor-unfit",
            "executor-not-started",
            "not-owner",
            "intent-not-open",
            "already-in-sync",
            "nothing-detached",
        ],
    ),
    (
        PERSON,
        &[
            "plan-unknown",
            "permit-void",
            "local-cannot-pair",
            "contrary-fresh",
            "still-runs",
            "nothing-to-end",
            "brake-already",
        ],
    ),
    (
        KIND,
        &[
            "hypervisor-unsure",
            "not-a-vm",
            "exclusion-unsure",
            "nothing-excluded",
            "pinned",
            "not-pinned",
            "unpin-unproven",
            "migration-target-unproven",
        ],
    ),
];

/// Rules without a story: why.
const NO_STORY: [(&str, &str); 2] = [
    ("permit-void", "a new leader drops what permits, so a subject of an older term is unknown before it is void"),
    (
        "config-awaits-lease",
        "it is asked for by who changes voters, before anything is proposed: tests of `quorum remove`",
    ),
];

/// Why no run reaches this rule, if that is so.
pub fn rule(code: &str) -> Option<&'static str> {
    RULES.iter().find(|(_, codes)| codes.contains(&code)).map(|(why, _)| *why)
}

/// Why no run reaches this kind of evidence, if that is so.
pub const fn evidence(kind: EvidenceKind) -> Option<&'static str> {
    match kind {
        EvidenceKind::HypervisorOff | EvidenceKind::StorageExcluded => Some(KIND),
        EvidenceKind::PoweredOff
        | EvidenceKind::SelfFenced
        | EvidenceKind::Released
        | EvidenceKind::Returned
        | EvidenceKind::Attested => None,
    }
}

#[test]
fn every_rule_that_no_run_reaches_is_refused_in_a_story() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../quorum/testdata/ledger");
    let files = std::fs::read_dir(folder).expect("the ledger's stories");
    let stories: String =
        files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a story")).collect();
    let without = |code: &&&str| !stories.contains(&format!("refused {code}:"));
    let mut untold: Vec<&str> = RULES.iter().flat_map(|(_, codes)| codes.iter()).filter(without).copied().collect();
    untold.retain(|code| !NO_STORY.iter().any(|(known, _)| known == code));
    assert!(untold.is_empty(), "no run and no story reaches {untold:?}");
    let known = |code: &&&str| !quorum::ledger::Refusal::CODES.contains(*code);
    let unknown: Vec<_> = RULES.iter().flat_map(|(_, codes)| codes.iter()).filter(known).collect();
    assert!(unknown.is_empty(), "no such rules: {unknown:?}");
}
