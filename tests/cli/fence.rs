//! The verbs of fencing against an agent that drives one device: documents by their schemas, what is shown, what is
//! refused, and that no secret is in any of it.

use super::lab::{Lab, SPEC, Said, wait_for};
use super::schema;
use std::os::unix::fs::PermissionsExt;

const SECRET: &str = "panel-password-51c2";
/// A machine that runs and says so, as `fencing/docs/command.md` asks.
const ADAPTER: &str = r#"#!/bin/sh
read -r request
echo '{"api_version":1,"power":"on","identity":{"serial":"OS1"},"lab":true}'
"#;

/// An agent with a device of os-1 that it has read.
fn fenced() -> Lab {
    let lab = Lab::start();
    std::fs::write(lab.path("secret"), SECRET).expect("written");
    std::fs::write(lab.path("adapter"), ADAPTER).expect("written");
    let mode = |name: &str, mode| std::fs::set_permissions(lab.path(name), std::fs::Permissions::from_mode(mode));
    mode("adapter", 0o755).and_then(|()| mode("secret", 0o600)).expect("permissions");
    let host = "name = \"os-1\"\nsite = \"osaka\"\n";
    let spec = SPEC.replace(
        &format!("{host}fencing = [[\"self\"]]"),
        &format!("{host}serial = \"OS1\"\nfencing = [[\"panel\"], [\"self\"]]"),
    );
    let (program, secret) = (lab.text("adapter"), lab.text("secret"));
    let device = format!(
        "[[device]]\nname = \"panel\"\nkind = \"command\"\nprogram = \"{program}\"\n\
         secrets = {{ password = {{ file = \"{secret}\" }} }}\nlab = true\n"
    );
    std::fs::write(lab.path("fenced.toml"), spec + &device).expect("written");
    let said = lab.ask(&["apply", &lab.text("fenced.toml"), "--reason", "a panel"]);
    assert_eq!(said.exit, 0, "{said:?}");
    wait_for("the panel is read", || {
        let tested = lab.ask(&["fence", "test", "os-1", "-o", "json"]);
        (tested.exit == 0).then_some(())
    });
    lab
}

/// What is asked, the schema of the answer, and the exit status.
const ASKED: [(&str, i32, &[&str]); 11] = [
    ("fence", 0, &["fence", "status"]),
    ("fence-test", 0, &["fence", "test", "--all"]),
    ("fence-test", 0, &["fence", "test", "os-1"]),
    ("error", 1, &["fence", "test", "ng-1"]),
    // Nothing about os-1 is left to be fenced: it never was admitted. What would be called is shown all the same.
    ("fence-order", 3, &["fence", "run", "host", "os-1", "--dry-run"]),
    ("error", 3, &["fence", "run", "host", "os-1", "--reason", "fire", "--confirm", "os-1"]),
    ("fence-order", 3, &["fence", "release", "host", "os-1", "--dry-run"]),
    ("error", 3, &["fence", "release", "host", "os-1", "--reason", "no fire"]),
    ("fence-order", 3, &["fence", "override", "host", "tk-1", "--dry-run"]),
    ("error", 3, &["fence", "override", "host", "nobody", "--reason", "gone", "--confirm", "nobody"]),
    ("fence-history", 0, &["fence", "history"]),
];

#[test]
fn every_verb_of_fencing_answers_by_its_schema_and_without_secrets() {
    let lab = fenced();
    let mut complaints = Vec::new();
    for (name, exit, args) in ASKED {
        let said = lab.ask(&[args, &["-o", "json"]].concat());
        if said.exit != exit {
            complaints.push(format!("{args:?} ended with {} instead of {exit}: {}", said.exit, said.out));
        }
        let found = schema::complaints(name, &said.json());
        complaints.extend(found.into_iter().map(|complaint| format!("{args:?}: {complaint}: {}", said.out)));
        for said in [said, lab.ask(args)] {
            if said.out.contains(SECRET) || said.err.contains(SECRET) {
                complaints.push(format!("{args:?} tells a secret"));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// A line of the text that has all these words.
fn has_line(said: &Said, words: &[&str]) -> bool {
    said.out.lines().any(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn what_could_be_proven_by_what_and_how_old_that_is_can_be_read() {
    let lab = fenced();
    // The engine is told of readings once a second.
    let status = wait_for("a sign of life", || {
        let status = lab.ask(&["fence", "status"]);
        has_line(&status, &["os-1", "panel says \"on\""]).then_some(status)
    });
    assert!(has_line(&status, &["os-1", "1", "powered-off", "yes"]), "{}", status.out);
    assert!(has_line(&status, &["panel", "command", "on", "ms"]), "{}", status.out);
    assert!(has_line(&status, &["seen by tk-1", "ago", "index"]), "{}", status.out);
    let dry = lab.ask(&["fence", "run", "host", "os-1", "--dry-run"]);
    assert!(has_line(&dry, &["os-1 level 1", "would prove powered-off"]), "{}", dry.out);
    assert!(has_line(&dry, &["panel", "off", &lab.text("adapter")]), "{}", dry.out);
    assert!(has_line(&dry, &["would be refused", "os-1"]) && has_line(&dry, &["next"]), "{}", dry.out);
}

#[test]
fn an_order_about_fencing_needs_a_reason_and_the_name_twice() {
    let lab = Lab::start();
    for verb in ["run", "override"] {
        let blind = lab.ask(&["fence", verb, "host", "os-1"]);
        assert_eq!((blind.exit, blind.err.contains("--reason")), (2, true), "{blind:?}");
        let once = lab.ask(&["fence", verb, "host", "os-1", "--reason", "it is off, I looked"]);
        assert_eq!((once.exit, once.err.contains("--confirm")), (2, true), "{once:?}");
        let other = ["fence", verb, "host", "os-1", "--reason", "it is off, I looked", "--confirm", "tk-1"];
        assert_eq!(lab.ask(&other).exit, 2, "{verb}");
    }
}
