//! Whatever in this crate reads what devices, people and files say, as a fuzzer calls it (`make fuzz`).
//!
//! Contract of a target: no bytes whatsoever make it panic, and nothing but the one plain sentence of a kind is read as
//! "off". It answers whether the bytes were accepted, so that a target that refuses everything shows.
//!
//! Not here: the fuzzer (`tests/fuzz`), and what it found once (`antipode::fuzzing`).

use crate::FencingConfig;
use crate::device::fuzz;
use crate::executor::proofs::inherited;
use crate::journal::recover;
use crate::params::parse_duration;
use crate::target::MachineUuid;

/// A name, what is called, and inputs that are accepted.
pub type Target = (&'static str, fn(&[u8]) -> bool, fn() -> Vec<Vec<u8>>);

/// This crate's targets.
pub const TARGETS: [Target; 5] = [
    ("fence-answers", fuzz::answers, fuzz::answer_seeds),
    ("fence-http", fuzz::http, fuzz::http_seeds),
    ("fence-disks", fuzz::disks, fuzz::disk_seeds),
    ("fence-spec", spec, spec_seeds),
    ("fence-journal", journal, journal_seeds),
];

/// Hosts and devices as a person writes them.
fn spec(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let _ = (MachineUuid::parse(text), parse_duration(text));
    FencingConfig::parse(text).is_ok_and(|config| config.build().is_ok())
}

fn spec_seeds() -> Vec<Vec<u8>> {
    let host =
        "[[host]]\nname = 'tk-1'\nsite = 'tokyo'\nuuid = '4c4c4544-0042-3010-8051-b7c04f334a31'\nserial = 'AB12'\n";
    let uuid = "'a1234567-89ab-cdef-a123-456789abcdef'";
    let devices = [
        "kind = 'redfish'\nurl = 'https://bmc:8443/redfish/v1/Systems/1'\nuser = 'fence'\npassword = { env = 'BMC' }\nca = '/etc/bmc.pem'".to_owned(),
        "kind = 'ipmi'\nhost = '10.0.0.9'\nuser = 'fence'\npassword = { file = '/etc/bmc' }\ncipher = 17\nidentify_by = 'both'".to_owned(),
        format!("kind = 'libvirt'\nuri = 'qemu+ssh://hv/system'\ndomain = {uuid}\nhypervisor = {uuid}"),
        "kind = 'command'\nprogram = '/usr/bin/adapter'\nargs = ['-v']\nsettings = { a = 1 }\nproves = 'machine'".to_owned(),
        "kind = 'sbd'\ndevices = ['/dev/a', '/dev/b', '/dev/c']\nnode = 'tk-1'".to_owned(),
        "kind = 'fence_agent'\nagent = '/usr/sbin/fence_dummy'\noptions = { type = 'file' }".to_owned(),
        "kind = 'redfish'\nread_limit = '5s'\nsettle = '1.5s'\nkind2 = 3".to_owned(),
    ];
    let with =
        |device: &String| format!("{host}fencing = [['one'], ['watchdog']]\n[[device]]\nname = 'one'\n{device}\n");
    devices.iter().map(|device| with(device).into_bytes()).collect()
}

/// What an earlier process left on disk.
fn journal(bytes: &[u8]) -> bool {
    let (recovered, _last) = recover(bytes, "boot");
    let text = String::from_utf8_lossy(bytes);
    let proofs = inherited(&text, 1_000);
    recovered.interrupted.len() + proofs.len() > 0
}

fn journal_seeds() -> Vec<Vec<u8>> {
    let head = |seq: u64, boot: &str| {
        format!(
            r#"{{"v":1,"seq":{seq},"wall_ms":5,"boot":"{boot}","boottime_ms":9,"task":{{"target":"tk-1","he":7,"stamp":{{"era":1,"term":3,"index":88}}}}"#
        )
    };
    let ordered = format!("{},\"event\":\"ordered\"}}\n", head(1, "boot"));
    let calling = format!("{},\"event\":\"calling\",\"until_boottime_ms\":500}}\n", head(2, "boot"));
    let others =
        ["cancelled", "admitted", "finished"].map(|event| format!("{},\"event\":\"{event}\"}}\n", head(3, "old")));
    let gate = r#"{"v":1,"seq":0,"wall_ms":5,"boot":"b","boottime_ms":9,"task":null,"event":"gate","gate":{"marks":{"tk-1":{"newest":{"era":1,"term":1,"index":1},"he":3,"cancelled":null}}}}"#;
    let open = format!("{gate}\n{ordered}{calling}");
    let closed = format!("{open}{}{ordered}", others.concat());
    vec![open.into_bytes(), closed.into_bytes(), br#"{"bmc-1":{"wall_ms":17}}"#.to_vec()]
}
