//! What the kinds find wrong with a spec, each at its line and key with a remedy: what no reader of the file's form sees.

use super::build::{keys, own_keys};
use crate::config::{ClusterSpec, GroupConfig, Problem, VolumeConfig};
use crate::replication::nbd::NbdSpec;
use crate::replication::{KeyProblem, command};
use crate::workload::command::CommandSpec;
use crate::workload::qemu::spec::QemuSpec;
use quorum::id::HostName;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

/// For what a kind's own form says.
const SEE_KIND: &str = "see the kind's documentation for its keys";

/// One thing that is wrong.
struct Wrong {
    path: Vec<String>,
    what: String,
    remedy: String,
}

impl Wrong {
    fn new(path: &[&str], what: String, remedy: &str) -> Self {
        Self { path: path.iter().map(|&part| part.to_owned()).collect(), what, remedy: remedy.to_owned() }
    }
}

/// What the kinds find wrong with their own keys in the spec `source`, the content of `file`, each at its line.
pub fn kind_problems(file: &str, source: &str) -> Vec<Problem> {
    let Ok(spec) = ClusterSpec::parse(file, source) else { return Vec::new() };
    let mut found = Vec::new();
    for group in spec.groups.values() {
        places(group, &mut found);
        found.extend(group.volumes.iter().filter_map(|volume| volume_problem(group, volume)));
    }
    ports(&spec, &mut found);
    found.iter().map(|wrong| Problem::at(file, source, (&wrong.path, &wrong.what, &wrong.remedy))).collect()
}

fn places(group: &GroupConfig, found: &mut Vec<Wrong>) {
    let mirrored = group.volumes.iter().find(|volume| volume.replication == "nbd");
    for (site, place) in &group.places {
        let path = ["group", group.name.as_str(), "at", site.as_str()];
        let wrong = match place.kind.as_str() {
            "qemu" => keys::<QemuSpec>(&place.params, "qemu").err(),
            "command" => keys::<CommandSpec>(&place.params, "command").err(),
            other => Some(format!("workload kind {other:?} is not known to this version")),
        };
        found.extend(wrong.map(|what| Wrong::new(&path, what, SEE_KIND)));
        if let Some(volume) = mirrored.filter(|_| place.kind != "qemu") {
            let what = format!("{:?} can't mirror volume {}, which is of kind nbd", place.kind, volume.name);
            let remedy =
                "only a guest's own QEMU does: write kind = \"qemu\", or replicate the volume by kind = \"command\"";
            found.push(Wrong::new(&[&path[..], &["kind"]].concat(), what, remedy));
        }
    }
}

fn volume_problem(group: &GroupConfig, volume: &VolumeConfig) -> Option<Wrong> {
    let path = ["group", group.name.as_str(), "volume", volume.name.as_str(), "replication"];
    let params = own_keys(&volume.params);
    let judged = match volume.replication.as_str() {
        "nbd" => judge(&params, "nbd", NbdSpec::problem),
        "command" => judge(&params, "command", command::CommandSpec::problem),
        other => Err(format!("replication kind {other:?} is not known to this version")),
    };
    match judged {
        Ok(None) => None,
        Ok(Some(KeyProblem { key, what, remedy })) => Some(Wrong::new(&[&path[..], &[key]].concat(), what, &remedy)),
        Err(what) => Some(Wrong::new(&path, what, SEE_KIND)),
    }
}

fn judge<T: DeserializeOwned>(
    params: &toml::Table,
    kind: &str,
    problem: impl Fn(&T) -> Option<KeyProblem>,
) -> Result<Option<KeyProblem>, String> {
    keys::<T>(params, kind).map(|spec| problem(&spec))
}

/// A standby's exports listen side by side: two volumes whose groups have a host in common need a port each.
fn ports(spec: &ClusterSpec, found: &mut Vec<Wrong>) {
    let hosts = |group: &GroupConfig| -> BTreeSet<HostName> {
        group.places.values().flat_map(|place| place.hosts.iter().cloned()).collect()
    };
    let mut taken: Vec<(i64, &GroupConfig, &VolumeConfig)> = Vec::new();
    for group in spec.groups.values() {
        for volume in &group.volumes {
            let port = volume.params.get("port").and_then(toml::Value::as_integer);
            let Some(port) = port.filter(|port| *port != 0) else { continue };
            let meets = |(other, of, _): &&(i64, &GroupConfig, &VolumeConfig)| {
                *other == port && !hosts(group).is_disjoint(&hosts(of))
            };
            if let Some((_, of, other)) = taken.iter().find(meets) {
                let path = ["group", group.name.as_str(), "volume", volume.name.as_str(), "replication", "port"];
                let what = format!("{port} is the port of volume {} of {}, on the same hosts", other.name, of.name);
                found.push(Wrong::new(&path, what, "give each volume a port of its own"));
            }
            taken.push((port, group, volume));
        }
    }
}

/// What the adapters that are installed on this host say about the volumes that the spec gives them: one that can't hold
/// writes back is no replication for a synchronous volume. Other hosts' adapters are asked before each mirror.
pub async fn adapter_problems(file: &str, source: &str) -> Vec<Problem> {
    let Ok(spec) = ClusterSpec::parse(file, source) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, group) in &spec.groups {
        for volume in group.volumes.iter().filter(|volume| volume.replication == "command") {
            let Ok(kind) = keys::<command::CommandSpec>(&own_keys(&volume.params), "command") else { continue };
            if let Some(what) = kind.mode_problem().await {
                let path = ["group", name.as_str(), "volume", volume.name.as_str(), "replication"];
                found.push(Problem::at(file, source, (&path.map(str::to_owned), &what, SEE_KIND)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
[cluster]
name = "demo"
[[site]]
name = "tokyo"
[[host]]
name = "tk-1"
site = "tokyo"
[[group]]
name = "web"
home = "tokyo"
[group.at.tokyo]
kind = "command"
hosts = ["tk-1"]
program = "/usr/lib/antipode/web"
"#;

    const PROGRAM: &str = "kind = \"command\"\nhosts = [\"tk-1\"]\nprogram = \"/usr/lib/antipode/web\"\n";
    const GUEST: &str = "kind = \"qemu\"\nhosts = [\"tk-1\"]\nmemory = \"96MiB\"\n";

    /// The group as a guest, with a volume of kind nbd for each list of keys.
    fn guest(volumes: &[&str]) -> String {
        let volume = |(n, keys): (usize, &&str)| {
            format!("[[group.volume]]\nname = \"v{n}\"\nreplication = {{ kind = \"nbd\", mode = \"sync\", {keys} }}\n")
        };
        let volumes: String = volumes.iter().enumerate().map(volume).collect();
        format!("{}{volumes}", SPEC.replace(PROGRAM, GUEST))
    }

    /// Neither kind of mirror is refused: an asynchronous copy is never in sync, and its lag gates the takeover.
    #[test]
    fn a_volume_of_either_mode_passes_and_another_word_does_not() {
        let volume = |mode: &str| {
            let nbd = format!("kind = \"nbd\", mode = \"{mode}\", port = 10809, path = \"/srv/web.img\"");
            let guest = SPEC.replace(PROGRAM, GUEST);
            format!("{guest}[[group.volume]]\nname = \"root\"\nreplication = {{ {nbd} }}\n")
        };
        for mode in ["sync", "async"] {
            let found = kind_problems("spec.toml", &volume(mode));
            assert!(found.is_empty(), "{mode}: {found:?}");
        }
        let found = kind_problems("spec.toml", &volume("now and then"));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    /// What a host can run must be what `apply` lets pass: the two lists are kept side by side here.
    #[test]
    fn a_group_behind_an_adapter_program_passes_and_its_keys_are_checked() {
        let of_kinds = kind_problems("spec.toml", SPEC);
        assert!(of_kinds.is_empty(), "{of_kinds:?}");
        let misspelt = kind_problems("spec.toml", &SPEC.replace("program", "programm"));
        assert_eq!(misspelt.len(), 1, "{misspelt:?}");
        let unknown = kind_problems("spec.toml", &SPEC.replace("\"command\"", "\"podman\""));
        assert!(unknown[0].what.contains("podman"), "{unknown:?}");
    }

    fn told(source: &str) -> Vec<(String, String)> {
        kind_problems("spec.toml", source).into_iter().map(|found| (found.key, found.what)).collect()
    }

    #[test]
    fn what_an_nbd_volume_cannot_work_with_is_refused_at_its_key() {
        let good = "port = 10809, path = \"/srv/{group}.img\"";
        assert_eq!(told(&guest(&[good])), []);
        let wrong = [
            ("port = 10809, path = \"/dev/vg/web\"", "path"),
            ("port = 10809, path = \"web.img\"", "path"),
            ("port = 0, path = \"/srv/web.img\"", "port"),
        ];
        for (keys, key) in wrong {
            let found = told(&guest(&[keys]));
            assert_eq!(found.len(), 1, "{keys}: {found:?}");
            assert_eq!(found[0].0, format!("group.web.volume.v0.replication.{key}"), "{found:?}");
        }
    }

    /// The guest's own QEMU is what mirrors.
    #[test]
    fn an_nbd_volume_under_a_workload_that_is_no_guest_is_refused_at_the_place() {
        let found = told(&guest(&["port = 10809, path = \"/srv/web.img\""]).replace(GUEST, PROGRAM));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "group.web.at.tokyo.kind");
    }

    #[test]
    fn two_volumes_that_may_meet_on_a_host_are_refused_one_port() {
        let volume = |name: &str, port: u16| format!("port = {port}, path = \"/srv/{name}.img\"");
        let same = guest(&[&volume("a", 10_809), &volume("b", 10_809)]);
        let found = told(&same);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "group.web.volume.v1.replication.port");
        assert!(found[0].1.contains("volume v0 of web"), "{found:?}");
        assert_eq!(told(&guest(&[&volume("a", 10_809), &volume("b", 10_810)])), []);
    }
}
