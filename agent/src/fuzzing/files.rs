//! The two configuration files, and what programs beside the agent print.

use crate::config::{AgentConfig, ClusterSpec, check_spec, fencing_config, ledger_spec, timing_of};
use crate::driver::clock::parse_boot_id;
use crate::replication;
use crate::workload::command::{CommandSpec, is_answer};
use crate::workload::qemu::qmp;
use crate::workload::qemu::spec::QemuSpec;
use tokio::runtime::{Builder, Runtime};

/// A file as a person writes it: the first byte says which.
pub(super) fn config(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match which & 0x03 {
        0 => {
            let _checked = check_spec("cluster.toml", text, None);
            ClusterSpec::parse("cluster.toml", text).is_ok_and(|spec| {
                let _ = (timing_of(&spec).check(), ledger_spec(&spec));
                let _built = fencing_config(&spec).build();
                true
            })
        }
        1 => AgentConfig::parse("agent.toml", text).is_ok(),
        2 => toml::from_str::<QemuSpec>(text).is_ok(),
        _ => toml::from_str::<CommandSpec>(text).is_ok(),
    }
}

pub(super) fn config_seeds() -> Vec<Vec<u8>> {
    let with = |which: u8, text: &str| [&[which], text.as_bytes()].concat();
    let mut seeds = vec![
        with(2, "memory = \"96MiB\"\ncpus = 2\n"),
        with(3, "program = \"/usr/bin/adapter\"\nlook_seconds = 5\nparams = { a = [1, \"b\"] }\n"),
    ];
    // The good files and the bad ones of the repository, where that is.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (which, folder) in [(0, "testdata/config"), (0, "../deploy/config")] {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let which = if name.starts_with("agent") { 1 } else { which };
            if name.ends_with(".toml") {
                seeds.extend(std::fs::read_to_string(entry.path()).map(|text| with(which, &text)));
            }
        }
    }
    seeds
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// A monitor's lines, an adapter's answer, a boot id: the first byte says which.
pub(super) fn programs(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    match which & 0x03 {
        0 | 1 => RUNTIME.with(|runtime| runtime.block_on(qmp::hear(bytes))),
        2 => is_answer(bytes) | replication::command::is_answer(bytes),
        _ => std::str::from_utf8(bytes).is_ok_and(|text| parse_boot_id(text).is_ok()),
    }
}

pub(super) fn program_seeds() -> Vec<Vec<u8>> {
    let with = |which: u8, text: &str| [&[which], text.as_bytes()].concat();
    let lines = "{\"event\":\"BLOCK_JOB_READY\",\"data\":{\"device\":\"m\"}}\n{\"id\":1,\"return\":[{\"id\":\"m\",\"status\":\"ready\"}]}\n\
        {\"id\":2,\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n{\"id\":9,\"return\":{}}\n";
    let answer = r#"{"result":"running","because":"","notes":["a"],"epoch":3,"host_epoch":7,"begin":"paused"}"#;
    let mirror = r#"{"result":"synced","order":{"epoch":7,"mode":"async","to":"os-1","target":{"ip":"192.0.2.7","port":1}},"pending_bytes":0,"behind_ms":12}"#;
    vec![with(0, lines), with(2, answer), with(2, mirror), with(3, "4c4c4544-0042-3010-8051-b7c04f334a31\n")]
}
