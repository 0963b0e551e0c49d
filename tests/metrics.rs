//! The metrics, their table, the alerts on them, and a runbook page for each alert. `promtool` (Debian: prometheus)
//! judges the formats; without it these tests fail.

use antipode::engine::{
    AttentionLine, DataLine, FreezeLine, GateLine, GatesLine, GroupLine, HostLine, PlanLine, PossibleLine, QuorumLine,
    SiteLine, StatusDocument, VersionLine,
};
use antipode::event::Event;
use antipode::metrics::{Machine, Metrics, PathReading};
use quorum::ledger::Ledger;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn status() -> StatusDocument {
    let gate = || GateLine { state: "closed", because: "heard".into() };
    let gates = GatesLine { detect: gate(), declare: gate(), fence: gate(), activate: gate() };
    let data = DataLine {
        in_sync: vec!["a".into(), "b".into()],
        generation: 1,
        lag_ms: Some(5),
        attested_ms_ago: None,
        expected_loss_ms: Some(7),
    };
    StatusDocument {
        api_version: 1,
        cluster: "demo".into(),
        lab: true,
        index: 9,
        seen_by: "a".into(),
        as_of_ms: 10,
        spec_revision: 2,
        version: VersionLine { cluster: 1, here: 1, behind: Vec::new() },
        freeze: vec![FreezeLine { index: 4, scope: "cluster".into(), span_ms: 1, reason: "work".into() }],
        quorum: QuorumLine { voters: 3, reachable: 3, can_lose: 1, leader: Some("a".into()), members: Vec::new() },
        sites: vec![SiteLine { name: "tokyo".into(), state: "healthy", witness: false }],
        hosts: vec![HostLine {
            name: "a".into(),
            site: "tokyo".into(),
            class: "A".into(),
            state: "admitted",
            host_epoch: None,
            last_grant_age_ms: Some(3),
            lease_left_ms: Some(900),
        }],
        groups: vec![GroupLine {
            name: "erp".into(),
            tier: "auto",
            state: "running",
            host: Some("a".into()),
            site: Some("tokyo".into()),
            shape: Some("vm"),
            epoch: None,
            data,
            would_go_to: None,
            gates,
            automatic_failover: PossibleLine { possible: true, because: String::new() },
            pin: None,
        }],
        plans: vec![PlanLine {
            id: 1,
            kind: "failover",
            group: "erp".into(),
            state: "running",
            step: String::new(),
            deadline_ms: 1,
            next: String::new(),
        }],
        attention: vec![AttentionLine { code: "brake", text: String::new(), next: String::new() }],
    }
}

/// Metrics with something in most of them.
fn fed() -> Metrics {
    let metrics = Metrics::new();
    metrics.update(&status());
    let ledger = Ledger::new();
    metrics.event(&Event::Suspect { peer: "b".parse().expect("a name"), because: "silent".into() }, &ledger);
    let (rule, because) = ("owner-unproven", "no".to_owned());
    let refused = Event::Refused { index: quorum::id::LogIndex(3), command: "grant", rule, because };
    metrics.event(&refused, &ledger);
    let path = PathReading { peer: "b".into(), path: "0".into(), up: true, rtt: Some(0.04) };
    metrics.machine(&Machine {
        paths: vec![path],
        counted: vec![("b".into(), "0".into(), "datagrams-sent".into(), 7)],
        certificate_until: 2_000_000_000,
        raft: Some((3, 9)),
        sickness: 1,
        proposals: 2,
    });
    metrics.late(0.003);
    metrics
}

fn promtool(args: &[&str], input: &str) {
    let mut tool = Command::new("promtool")
        .args(args)
        .current_dir(root().join("deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: install Debian's package prometheus");
    tool.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let output = tool.wait_with_output().expect("it ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {args:?}: {said}");
}

#[test]
fn promtool_takes_the_metrics_and_the_alerts_and_sees_each_alert_fire() {
    promtool(&["check", "metrics"], &fed().render());
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts_test.yml"], "");
}

#[test]
fn a_value_is_where_it_was_put() {
    let text = fed().render();
    for line in [
        "antipode_group_state{group=\"erp\",state=\"running\"} 1",
        "antipode_suspicions_total{peer=\"b\"} 1",
        "antipode_transport_total{path=\"0\",peer=\"b\",what=\"datagrams-sent\"} 7",
        "antipode_certificate_expires_timestamp_seconds 2000000000",
        "antipode_late_seconds_bucket{le=\"0.005\"} 1",
        "antipode_refused_total{command=\"grant\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_table_in_the_documentation_is_the_one_of_the_program() {
    let mut table = String::from(
        "# Metrics\n\nOn `/metrics` of `network.metrics` in agent.toml.\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in Metrics::new().described() {
        let labels = metric.labels.join(", ");
        table.push_str(&format!("| `{}` | {} | {labels} | {} |\n", metric.name, metric.kind, metric.help));
    }
    let file = root().join("agent/docs/metrics.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &table).expect("written");
    }
    assert!(read("agent/docs/metrics.md") == table, "agent/docs/metrics.md differs; BLESS=1 writes it");
}

/// Words of the alerts that begin like a metric's name.
fn named_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("antipode_")).map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn alerts_ask_for_metrics_that_are_there() {
    let metrics = Metrics::new();
    let named = named_in(&read("deploy/prometheus/alerts.yml"));
    assert!(named.len() > 15, "{named:?}");
    for name in named {
        assert!(metrics.described().iter().any(|metric| metric.name == name), "no metric {name}");
    }
}

#[test]
fn every_alert_has_its_test_and_its_page_and_every_page_its_alert() {
    let (alerts, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in &names {
        assert!(alerts.contains(&format!("runbook: deploy/runbook/{name}.md")), "{name} names its page");
        assert!(tests.contains(&format!("name: {name} fires")), "{name} is seen firing");
        let page = read(&format!("deploy/runbook/{name}.md"));
        for section in ["Meaning", "Check", "Act", "Do not", "Verify", "Escalate"] {
            let body = page.split(&format!("## {section}\n")).nth(1).unwrap_or_else(|| panic!("{name}: {section}"));
            assert!(body.split("\n## ").next().is_some_and(|text| text.trim().len() > 10), "{name}: {section}");
        }
    }
    for entry in std::fs::read_dir(root().join("deploy/runbook")).expect("the pages") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let is_alert = name.starts_with("Antipode");
        assert!(!is_alert || names.contains(&name.as_str()), "{name} is the page of no alert");
    }
}
