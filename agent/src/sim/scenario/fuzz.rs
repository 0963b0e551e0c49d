//! Scenarios as people write them, as a fuzzer makes them up.

use super::{Cluster, golden, script};

const CLUSTER: &str = "[cluster]\nname = 'demo'\nround_trip_max = '40ms'\n[[site]]\nname = 'tokyo'\n[[site]]\nname = 'osaka'\n\
[[site]]\nname = 'nagoya'\nwitness = true\n[[host]]\nname = 'tk-1'\nsite = 'tokyo'\n[[host]]\nname = 'os-1'\nsite = 'osaka'\n\
[[host]]\nname = 'ng-1'\nsite = 'nagoya'\n";
const SIM: &str =
    "[sim]\nseed = 7\nlead = 'ng-1'\nvoters = ['tk-1', 'os-1', 'ng-1']\ndelay = '5ms'\n[sim.host.tk-1]\nclass = 'B'\n";

thread_local! {
    static PLAYED: Cluster = {
        let common = std::fs::read_to_string(folder().join("cluster.toml")).ok();
        let common = common.and_then(|text| Cluster::parse("cluster.toml", &text).ok());
        common.unwrap_or_else(|| Cluster::parse("cluster.toml", CLUSTER).expect("a good cluster"))
    };
}

/// The scenarios of the repository, where that is.
fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios")
}

/// A cluster, a script for a fixed cluster, or a golden trace: the first byte says which.
pub(crate) fn scenario(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match which & 0x03 {
        0 => Cluster::parse("cluster.toml", text).is_ok(),
        1 => golden::parse(text).is_ok_and(|lines| golden::parse(&golden::render(&lines)).is_ok()),
        _ => {
            let played = |cluster: &Cluster| script::parse("script", text, &cluster.cast()).is_ok();
            PLAYED.with(played)
        }
    }
}

pub(crate) fn scenario_seeds() -> Vec<Vec<u8>> {
    let with = |which: u8, text: &str| [&[which], text.as_bytes()].concat();
    let script = "power tokyo off\nwait 3s\nat 5s cut tk-1 os-1\nuntil link tk-1 os-1 is down within 10s\nexpect nobody lost\nnever HostLost\n";
    let golden = "   1.500 tk-1 HostAdmitted he=1\n  -0.020 world power\n";
    let seeds = [with(0, CLUSTER), with(0, &format!("{CLUSTER}{SIM}")), with(1, golden), with(2, script)];
    let mut accepted: Vec<Vec<u8>> = seeds.into_iter().filter(|seed| scenario(seed)).collect();
    for entry in std::fs::read_dir(folder()).into_iter().flatten().flatten() {
        accepted.extend(std::fs::read_to_string(entry.path().join("script")).map(|text| with(2, &text)));
    }
    accepted
}
