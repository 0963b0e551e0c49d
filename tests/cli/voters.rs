//! Backup, recovery and restoration of the quorum on the files of a real agent: documents by their schemas, what is
//! refused and with which next command, what the new era begins from.

use super::lab::{Lab, Said, antipode, read, wait_for};
use super::schema;
use std::process::{Command, Stdio};

const SURE: [&str; 4] = ["--reason", "the others burned down", "--confirm", "demo"];

/// Holds a document against its schema.
fn by_schema(name: &str, said: &Said) -> serde_json::Value {
    assert_eq!(schema::complaints(name, &said.json()), Vec::<String>::new(), "{said:?}");
    said.json()
}

/// What is refused, as an error document with this exit and code, whose next command has this in it.
fn refused(said: &Said, exit: i32, code: &str, next: &str) {
    let document = by_schema("error", said);
    assert_eq!((said.exit, document["error"]["code"].as_str()), (exit, Some(code)), "{said:?}");
    let named = document["error"]["next"].as_str().is_some_and(|text| text.contains(next));
    assert!(named, "{next:?} isn't named: {said:?}");
}

/// A verb on this host's files, with its words, as JSON.
fn on_files(lab: &Lab, config: &str, words: &[&str]) -> Said {
    let config = lab.text(config);
    antipode(&[&["quorum"][..], words, &["--config", &config, "--look-for", "3", "-o", "json"]].concat())
}

#[test]
fn a_backup_is_written_once_and_a_new_era_begins_from_it() {
    let mut lab = Lab::start();
    let file = lab.text("cluster.backup");
    let said = lab.ask(&["quorum", "backup", &file, "-o", "json"]);
    let document = by_schema("quorum-backup", &said);
    let bytes = std::fs::metadata(lab.path("cluster.backup")).expect("written").len();
    assert_eq!((said.exit, document["era"].as_u64(), document["bytes"].as_u64()), (0, Some(1), Some(bytes)));
    refused(&lab.ask(&["quorum", "backup", &file, "-o", "json"]), 1, "file-unwritable", "a new file");

    let restore = |words: &[&str]| on_files(&lab, "agent.toml", &[&["restore", &file][..], words].concat());
    refused(&restore(&SURE), 3, "agent-running", "systemctl stop antipode-agent");
    lab.stop();
    let restore = |words: &[&str]| on_files(&lab, "agent.toml", &[&["restore", &file][..], words].concat());
    refused(&restore(&["--confirm", "demo"]), 2, "reason-missing", "--reason");
    refused(&restore(&SURE[..2]), 2, "not-confirmed", "--confirm");
    refused(&restore(&["--reason", "x", "--confirm", "another"]), 2, "not-confirmed", "--confirm");
    // It alone is a majority: nothing was lost for ever.
    let recover = on_files(&lab, "agent.toml", &[&["recover"][..], &SURE].concat());
    assert_eq!((recover.exit, by_schema("error", &recover)["error"]["code"].as_str()), (3, Some("era-refused")));
    let dry = restore(&[&["--dry-run"][..], &SURE].concat());
    let document = by_schema("quorum-era", &dry);
    assert_eq!((document["dry_run"].as_bool(), document["era"].as_u64()), (Some(true), Some(2)), "{dry:?}");
    let done = by_schema("quorum-era", &restore(&SURE));
    assert_eq!((done["dry_run"].as_bool(), done["voter"].as_u64() > Some(1_000)), (Some(false), true), "{done}");
    assert!(lab.path("data/voter.redb.ended-1").exists(), "the old store is kept under its voter's id");

    lab.run_agent();
    let status = lab.ask(&["status", "-o", "json"]).json();
    assert_eq!(status["quorum"]["members"][0]["id"], done["voter"], "{status}");
    assert!(
        status["freeze"].as_array().is_some_and(|freezes| !freezes.is_empty()),
        "a new era begins frozen: {status}"
    );
    assert_eq!(lab.ask(&["audit", "verify", "-o", "json"]).exit, 0);
    let freeze = done["freeze"].to_string();
    assert_eq!(lab.ask(&["thaw", &freeze, "--reason", "looked"]).exit, 0, "the printed index is the freeze's");
}

#[test]
fn a_host_without_a_store_and_a_cluster_that_was_never_created_are_not_recovered() {
    let mut lab = Lab::start();
    lab.stop();
    let alone = read(&lab.path("agent.toml"));
    let peer = |host: &str, id| {
        let address = "addresses = [\"127.0.0.1:9\"]";
        format!("[[peer]]\nhost = \"{host}\"\nsite = \"osaka\"\n{address}\nvoter = {id}\n")
    };
    let three = alone.replace(&lab.text("data"), &lab.text("three")) + &peer("os-1", 2) + &peer("os-2", 3);
    std::fs::write(lab.path("three.toml"), three).expect("written");
    let nothing = on_files(&lab, "three.toml", &[&["recover"][..], &SURE].concat());
    refused(&nothing, 3, "no-vote", "antipode quorum restore");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_antipode"));
    agent.args(["agent", "--config", &lab.text("three.toml")]).stdin(Stdio::null());
    let mut agent = agent.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for("its agent answers", || (lab.ask(&["status", "-o", "json"]).exit == 0).then_some(()));
    agent.kill().expect("it runs");
    agent.wait().expect("a child");
    let unborn = on_files(&lab, "three.toml", &[&["recover"][..], &SURE].concat());
    assert_eq!((unborn.exit, by_schema("error", &unborn)["error"]["code"].as_str()), (3, Some("era-refused")));
    assert!(!lab.path("three/voter.redb.era").exists(), "nothing was begun");
}
