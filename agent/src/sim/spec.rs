//! The cluster of which stories are told: `erp`, a guest with one mirrored volume, is at home at tokyo and can go to osaka;
//! the witness is at nagoya. What a story has otherwise is said where it is told.

/// As most stories have it.
pub(crate) const DEMO: &str = r#"
[cluster]
name = "demo"
declare = "eager"
round_trip_max = "40ms"
[[site]]
name = "tokyo"
[[site]]
name = "osaka"
[[site]]
name = "nagoya"
witness = true
[[host]]
name = "tk-1"
site = "tokyo"
[[host]]
name = "os-1"
site = "osaka"
[[host]]
name = "ng-1"
site = "nagoya"
[[group]]
name = "erp"
tier = "auto"
home = "tokyo"
accept = ["self-fenced"]
[[group.volume]]
name = "root"
replication = { kind = "nbd", mode = "sync" }
[group.at.tokyo]
kind = "qemu"
hosts = ["tk-1"]
[group.at.osaka]
kind = "qemu"
hosts = ["os-1"]
"#;

/// That spec with the first occurrence of each text replaced, one after the other; each must be there.
#[cfg(test)]
pub(super) fn varied(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(DEMO.to_owned(), |spec, (from, to)| {
        assert!(spec.contains(from), "{from:?} isn't in the spec");
        spec.replacen(from, to, 1)
    })
}
