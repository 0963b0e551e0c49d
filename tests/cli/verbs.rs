//! Every verb that a one-voter cluster can answer: exit status, JSON by its schema, what becomes so.

use super::lab::{Lab, SPEC, antipode, read, wait_for};
use super::schema;
use std::collections::BTreeSet;

/// What is asked of the local agent, the schema of the answer, and the exit status.
const ASKED: [(&str, i32, &[&str]); 36] = [
    ("status", 0, &["status"]),
    ("quorum-status", 0, &["quorum", "status"]),
    ("explain", 0, &["explain", "site", "tokyo"]),
    ("explain", 0, &["explain", "host", "tk-1"]),
    ("explain", 0, &["explain", "group", "erp"]),
    ("error", 1, &["explain", "group", "nothing"]),
    ("timing", 0, &["config", "timing"]),
    ("plans", 0, &["plan", "list", "--all"]),
    ("error", 1, &["plan", "show", "77"]),
    ("error", 3, &["plan", "cancel", "77"]),
    ("error", 3, &["plan", "retry", "77"]),
    ("error", 3, &["plan", "skip", "77"]),
    ("spec", 0, &["config", "show"]),
    ("revisions", 0, &["config", "history"]),
    ("revision", 0, &["config", "show", "--revision", "1"]),
    ("error", 1, &["config", "show", "--revision", "99"]),
    ("check", 0, &["config", "rollback", "1", "--dry-run"]),
    ("done", 0, &["freeze", "site", "tokyo", "--for", "30m", "--reason", "work"]),
    ("done", 0, &["maintenance", "site", "osaka", "--for", "2h", "--reason", "power"]),
    ("done", 0, &["maintenance", "site", "osaka", "--end"]),
    ("error", 3, &["freeze", "--pin", "erp", "--reason", "switches"]),
    ("error", 3, &["thaw", "--pin", "erp"]),
    ("error", 3, &["approve", "plan", "77"]),
    ("error", 3, &["failover", "nothing"]),
    ("error", 3, &["host", "readmit", "os-1"]),
    ("what-if", 0, &["what-if", "site-loss", "osaka"]),
    ("what-if", 0, &["what-if", "host-loss", "tk-1"]),
    ("what-if", 0, &["what-if", "link-loss", "tokyo", "osaka"]),
    ("error", 2, &["what-if", "site-loss", "kyoto"]),
    ("audit", 0, &["audit", "show"]),
    ("audit", 0, &["audit", "verify"]),
    ("error", 1, &["kept", "show", "nothing"]),
    ("error", 1, &["kept", "delete", "nothing"]),
    ("kept", 0, &["kept", "list"]),
    ("kept", 0, &["kept", "show", "erp-root"]),
    ("kept", 0, &["kept", "delete", "erp-root"]),
];

#[test]
fn every_verb_answers_by_its_schema() {
    let lab = Lab::start();
    keep(&lab);
    let mut seen = BTreeSet::new();
    let mut complaints = Vec::new();
    for (name, exit, args) in ASKED {
        let said = lab.ask(&[args, &["-o", "json"]].concat());
        if said.exit != exit {
            complaints.push(format!("{args:?} ended with {} instead of {exit}: {}", said.exit, said.out));
        }
        let found = schema::complaints(name, &said.json());
        complaints.extend(found.into_iter().map(|complaint| format!("{args:?}: {complaint}")));
        seen.insert(name.to_owned());
    }
    let first = lab.ask(&["events", "-o", "json"]).out.lines().next().map(str::to_owned).expect("an event");
    complaints.extend(schema::complaints("event", &serde_json::from_str(&first).expect("JSON")));
    seen.insert("event".into());
    complaints.extend(files(&lab, &mut seen));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    // A plan needs a host that is admitted: the moves' document is held against its schema beside its maker.
    // The verbs of fencing are asked where there is a device (`fence`), those of a new era on files (`voters`).
    let elsewhere = ["moves", "fence", "fence-test", "fence-order", "fence-history", "quorum-backup", "quorum-era"];
    let elsewhere = elsewhere.map(str::to_owned);
    let missing: Vec<String> =
        schema::names().into_iter().filter(|name| !seen.contains(name) && !elsewhere.contains(name)).collect();
    assert!(missing.is_empty(), "no real output was held against {missing:?}");
}

/// What a resync would have kept of an old side.
fn keep(lab: &Lab) {
    let set = lab.path("data/kept/erp-root");
    std::fs::create_dir_all(&set).expect("a folder");
    let origin =
        r#"{"group":"erp","volume":"root","host":"tk-1","generation":3,"replaced_under":4,"volume_bytes":4096}"#;
    let file = format!(r#"{{"version":1,"begun_unix_s":1,"origin":{origin}}}"#);
    std::fs::write(set.join("set.json"), file).expect("written");
    for name in ["data", "chunks"] {
        std::fs::write(set.join(name), b"").expect("written");
    }
}

/// The verbs that work on files.
fn files(lab: &Lab, seen: &mut BTreeSet<String>) -> Vec<String> {
    let authority = lab.text("authority");
    let (spec, bundle, agent) = (lab.text("spec.toml"), lab.text("b.tar"), lab.text("agent.toml"));
    let (out, other) = (lab.text("again"), lab.text("other"));
    let socket = lab.text("run/admin.sock");
    let asked: [(&str, &[&str]); 12] = [
        ("config-check", &["config", "check", &spec]),
        ("done", &["apply", &spec, "--socket", &socket]),
        ("version", &["version"]),
        ("doctor", &["doctor", "--config", &agent, "--socket", &socket]),
        ("bundle", &["bundle", "--out", &bundle, "--config", &agent, "--socket", &socket]),
        ("pki-init", &["pki", "init", "--dir", &other, "--cluster", "other"]),
        ("pki-issue", &["pki", "renew", "--dir", &authority, "--person", "otto", "--out", &out]),
        ("pki-show", &["pki", "show", "--dir", &authority]),
        ("pki-token", &["pki", "token", "--dir", &authority, "--host", "os-1", "--site", "osaka"]),
        ("pki-revoke", &["pki", "revoke", "--dir", &authority, "--person", "vera"]),
        ("pki-rotate", &["pki", "rotate-ca", "--dir", &authority, "--begin"]),
        ("join", &[]),
    ];
    let mut complaints = Vec::new();
    for (name, args) in asked {
        let said = if name == "join" { join(lab) } else { antipode(&[args, &["-o", "json"]].concat()) };
        // The doctor finds this machine without a watchdog; what it says is asked for here, not how it feels.
        if said.exit != 0 && name != "doctor" {
            complaints.push(format!("{args:?} ended with {}: {} {}", said.exit, said.out, said.err));
        }
        complaints.extend(
            schema::complaints(name, &said.json()).into_iter().map(|complaint| format!("{args:?}: {complaint}")),
        );
        seen.insert(name.to_owned());
    }
    complaints
}

/// A host obtains its certificate with a token, once.
fn join(lab: &Lab) -> super::lab::Said {
    use std::io::BufRead;
    let authority = lab.text("authority");
    let args = ["pki", "serve", "--dir", &authority, "--listen", "127.0.0.1:0"];
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_antipode"));
    let mut serving = program.args(args).stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    std::io::BufReader::new(serving.stderr.take().expect("its words")).read_line(&mut line).expect("where it listens");
    let at = line.trim().rsplit(' ').next().expect("an address").to_owned();
    let token = antipode(&["pki", "token", "--dir", &authority, "--host", "os-1", "--site", "osaka"]).out;
    let out = lab.text("joined");
    let said = antipode(&["join", token.trim(), "--from", &at, "--out", &out, "-o", "json"]);
    let again = antipode(&["join", token.trim(), "--from", &at, "--out", &lab.text("thief"), "-o", "json"]);
    let _gone = serving.kill();
    let _status = serving.wait();
    assert_eq!((again.exit, again.json()["error"]["code"].as_str()), (3, Some("join-refused")), "{again:?}");
    assert!(read(&lab.path("joined/identity.pem")).contains("PRIVATE KEY"));
    said
}

#[test]
fn errors_say_code_meaning_and_next_on_standard_output() {
    let nobody = antipode(&["status", "--socket", "/nowhere/admin.sock", "-o", "json"]);
    assert_eq!(nobody.exit, 5);
    let usage = antipode(&["plan", "show", "no-number", "-o", "json"]);
    assert_eq!((usage.exit, usage.err.as_str()), (2, ""));
    for (said, code) in [(&nobody, "agent-unreachable"), (&usage, "usage")] {
        let document = said.json();
        assert_eq!(schema::complaints("error", &document), Vec::<String>::new());
        assert_eq!(
            (document["error"]["code"].as_str(), document["exit"].as_i64()),
            (Some(code), Some(said.exit.into()))
        );
    }
    let check = antipode(&["status", "--check", "--socket", "/nowhere/admin.sock"]);
    assert_eq!(check.exit, 3, "Nagios' unknown: {check:?}");
    let blind = antipode(&["fence", "override", "host", "os-1"]);
    assert_eq!(blind.exit, 2, "a reason is asked for: {blind:?}");
    assert!(blind.err.contains("--reason"), "{blind:?}");
}

#[test]
fn a_spec_is_checked_changed_shown_and_rolled_back() {
    let lab = Lab::start();
    let changed = SPEC.replace("tier = \"auto\"", "tier = \"approve\"");
    let broken = SPEC
        .replace("home = \"tokyo\"", "home = \"tokyo\"\ntarget_rpo = \"ten\"")
        .replace("96MiB", "96")
        .replace("[[site]]\nname = \"tokyo\"", "[cluster.timing]\nlease = \"1s\"\n[[site]]\nname = \"tokyo\"");
    std::fs::write(lab.path("changed.toml"), &changed).expect("written");
    std::fs::write(lab.path("broken.toml"), broken).expect("written");
    std::fs::write(lab.path("dropped.toml"), &SPEC[..SPEC.find("[[group]]").expect("a group")]).expect("written");

    let refused = lab.ask(&["apply", &lab.text("broken.toml"), "--dry-run", "-o", "json"]);
    assert_eq!(refused.exit, 3, "{refused:?}");
    let document = refused.json();
    let keys: Vec<&str> =
        document["problems"].as_array().expect("problems").iter().filter_map(|p| p["key"].as_str()).collect();
    assert!(keys.contains(&"group.erp.target_rpo") && keys.contains(&"cluster.timing.lease"), "{keys:?}");

    let dry = lab.ask(&["apply", &lab.text("changed.toml"), "--dry-run"]);
    assert_eq!(dry.exit, 0, "{dry:?}");
    assert!(dry.out.contains("~ group.erp.tier = \"auto\" -> \"approve\""), "{dry:?}");
    assert_eq!(lab.ask(&["config", "show", "-o", "json"]).json()["revision"], 1, "only checked");

    assert_eq!(lab.ask(&["apply", &lab.text("changed.toml"), "--reason", "careful"]).exit, 0);
    let shown = lab.ask(&["config", "show", "-o", "json"]).json();
    assert_eq!((shown["revision"].as_u64(), shown["source"].as_str()), (Some(2), Some(changed.as_str())));
    wait_for("the second revision's file", || {
        let history = lab.ask(&["config", "history", "-o", "json"]).json();
        (history["revisions"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
    assert_eq!(lab.ask(&["config", "rollback", "1"]).exit, 0);
    let shown = lab.ask(&["config", "show", "-o", "json"]).json();
    assert_eq!((shown["revision"].as_u64(), shown["source"].as_str()), (Some(3), Some(SPEC)));
}

#[test]
fn what_people_did_is_chained_and_an_edited_entry_is_found() {
    let mut lab = Lab::start();
    let reason = "password = \"hunter2-planted\"";
    assert_eq!(lab.ask(&["freeze", "cluster", "--for", "1h", "--reason", reason]).exit, 0);
    let verified = lab.ask(&["audit", "verify", "-o", "json"]);
    assert_eq!((verified.exit, verified.json()["verdict"].as_str()), (0, Some("intact")), "{verified:?}");
    let shown = lab.ask(&["audit", "show", "-o", "json"]).json();
    let last = shown["records"].as_array().expect("records").last().expect("one").clone();
    assert_eq!((last["action"].as_str(), last["reason"].as_str()), (Some("freeze"), Some(reason)));
    assert!(last["key"].as_str().expect("a key").starts_with("local:"));
    assert_eq!(shown["compared_with_log"], shown["length"], "all of it is still in the log");

    // The support archive has the freeze and not the secret.
    let (bundle, agent) = (lab.text("b.tar"), lab.text("agent.toml"));
    assert_eq!(lab.ask(&["bundle", "--out", &bundle, "--config", &agent]).exit, 0);
    let archive = String::from_utf8_lossy(&std::fs::read(&bundle).expect("the archive")).into_owned();
    assert!(archive.contains("set-spec") && archive.contains("***") && !archive.contains("hunter2-planted"));
    let list = std::process::Command::new("tar").args(["-tf", &bundle]).output().expect("tar");
    assert!(String::from_utf8_lossy(&list.stdout).contains("antipode-bundle/doctor.json"), "{list:?}");

    // The trail survives a restart, and its edit is found after it as well.
    lab.stop();
    let trail = lab.path("data/audit.jsonl");
    let text = read(&trail);
    lab.run_agent();
    assert_eq!(lab.ask(&["audit", "verify"]).exit, 0, "after a restart");
    std::fs::write(&trail, text.replace("hunter2-planted", "nothing")).expect("edited");
    let found = lab.ask(&["audit", "verify"]);
    assert_eq!(found.exit, 1, "{found:?}");
    assert!(found.out.contains("was edited"), "{found:?}");
}
