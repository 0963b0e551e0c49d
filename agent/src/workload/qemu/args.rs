//! The command line of one guest. Pure: the same order gives the same arguments.
//!
//! What the command line guarantees: QEMU starts paused (`-S`), so that its taps are plugged in before the guest runs;
//! it is a daemon that outlives us; drives bypass the host's page cache and lock their images; the grant's epoch is
//! readable in the guest (SMBIOS type 11) and on the command line itself, from where `process` reads it back.

use super::runtime::{QemuRuntime, SOCKET_PATH_BYTES_MAX};
use super::spec::{CacheMode, ChannelKind, DriveSpec, QemuSpec};
use crate::workload::{Place, StartOrder, VolumeAt, WorkloadError};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A volume's name becomes part of QEMU's node names, which have 31 characters at most.
pub const VOLUME_NAME_BYTES_MAX: usize = 20;

/// The SMBIOS strings that name the guest begin with this.
pub const SMBIOS_PREFIX: &str = "antipode.";

/// Arguments that would undo what this driver relies on.
const REFUSED_ARGS: [&str; 16] = [
    "S",
    "daemonize",
    "qmp",
    "mon",
    "monitor",
    "pidfile",
    "incoming",
    "snapshot",
    "loadvm",
    "preconfig",
    "name",
    "smbios",
    "uuid",
    "runas",
    "chroot",
    "add-fd",
];

/// Words of the grant that the spec can use in its texts.
#[derive(Clone, Debug)]
pub struct Words {
    pairs: [(&'static str, String); 4],
}

impl Words {
    /// The words of this grant. Epochs are their whole number, era included: it only ever rises.
    pub fn new(place: &Place, order: &StartOrder) -> Self {
        let pairs = [
            ("{group}", place.group.to_string()),
            ("{epoch}", order.epoch.0.to_string()),
            ("{host}", place.host.to_string()),
            ("{host_epoch}", order.host_epoch.0.to_string()),
        ];
        Self { pairs }
    }

    /// `text` with the words filled in; other braces are left as they are.
    pub fn fill(&self, text: &str) -> String {
        self.pairs.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }
}

/// The node name of a volume as the guest's drive: what a mirror or a bitmap is attached to.
pub fn volume_node(volume: &str) -> String {
    format!("vol-{volume}")
}

/// The path of a drive's device in QEMU's object tree.
pub fn drive_device(volume: &str) -> String {
    format!("/machine/peripheral/disk-{volume}/virtio-backend")
}

/// The name of a card's tap: the same after each restart, different between groups, at most 15 characters.
pub fn tap_name(group: &str, nic: usize) -> String {
    let digest = Sha256::digest(group.as_bytes());
    format!("ap{:02x}{:02x}{:02x}{:02x}-{nic}", digest[0], digest[1], digest[2], digest[3])
}

/// The guest's UUID: the same at every place, derived from the group's name.
pub fn guest_uuid(group: &str) -> String {
    let digest = Sha256::digest(format!("antipode guest {group}").as_bytes());
    let hex = |range: std::ops::Range<usize>| digest[range].iter().map(|b| format!("{b:02x}")).collect::<String>();
    // Version 8 (custom), variant 1: a UUID made from a name by a rule of our own.
    format!("{}-{}-8{}-a{}-{}", hex(0..4), hex(4..6), &hex(6..8)[1..], &hex(8..10)[1..], hex(10..16))
}

/// Everything wrong with a spec that can be seen without starting it.
pub fn problems(spec: &QemuSpec, runtime: &QemuRuntime, volumes: &[VolumeAt]) -> Vec<String> {
    let mut found = Vec::new();
    if !(1..=1024).contains(&spec.cpus) {
        found.push(format!("cpus must be 1 to 1024, not {}", spec.cpus));
    }
    if spec.kernel.is_none() && (spec.initrd.is_some() || spec.append.is_some()) {
        found.push("initrd and append need kernel".into());
    }
    for volume in volumes {
        if !is_volume_name(&volume.name) {
            found.push(format!("volume {:?}: a name has 1 to {VOLUME_NAME_BYTES_MAX} of a-z 0-9 -", volume.name));
        }
    }
    for drive in spec.drives.iter().flatten() {
        if !volumes.iter().any(|volume| volume.name == drive.volume) {
            found.push(format!("drive {:?}: the group has no such volume", drive.volume));
        }
    }
    for arg in &spec.extra_args {
        let name = arg.trim_start_matches('-');
        if arg.starts_with('-') && REFUSED_ARGS.contains(&name) {
            found.push(format!("extra_args: -{name} is set by the driver itself"));
        }
    }
    let names = volumes.iter().map(|volume| volume.name.as_str());
    let channels = spec.channels.iter().map(|channel| channel.path.clone());
    let paths = runtime.monitors(names).into_iter().chain(channels);
    for path in paths.filter(|path| path.as_os_str().len() > SOCKET_PATH_BYTES_MAX) {
        found.push(format!("socket path {} is longer than {SOCKET_PATH_BYTES_MAX} bytes", path.display()));
    }
    found
}

/// True if `name` can be a volume's.
pub fn is_volume_name(name: &str) -> bool {
    (1..=VOLUME_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// What `command_line` needs to know of the machine: the accelerator that was chosen, and which volumes are devices.
#[derive(Clone, Debug)]
pub struct Found {
    /// The value of `-accel`.
    pub accelerator: &'static str,
    /// For each volume of the order whether it is a block device (else a regular file).
    pub is_device: Vec<bool>,
}

/// The arguments that start the guest paused.
///
/// # Errors
/// [`WorkloadError::Refused`] with everything that [`problems`] finds.
pub fn command_line(
    spec: &QemuSpec,
    place: &Place,
    order: &StartOrder,
    found: &Found,
) -> Result<Vec<String>, WorkloadError> {
    let runtime = QemuRuntime::new(&place.runtime);
    let problems = problems(spec, &runtime, &order.volumes);
    if !problems.is_empty() {
        return Err(WorkloadError::Refused { because: problems.join("; ") });
    }
    let mut line = Line { args: Vec::new(), words: Words::new(place, order) };
    line.machine(spec, place, order, found.accelerator);
    line.monitors(&runtime, &order.volumes);
    line.drives(spec, order, found);
    for (index, nic) in spec.nics.iter().enumerate() {
        let tap = tap_name(place.group.as_str(), index);
        line.pair("-netdev", format!("tap,id=nic{index},ifname={tap},script=no,downscript=no"));
        line.pair("-device", format!("virtio-net-pci,id=card{index},netdev=nic{index},mac={}", nic.mac));
    }
    line.channels(spec);
    line.args.extend(spec.extra_args.iter().map(|arg| line.words.fill(arg)));
    Ok(line.args)
}

struct Line {
    args: Vec<String>,
    words: Words,
}

impl Line {
    fn pair(&mut self, name: &str, value: impl Into<String>) {
        self.args.extend([name.to_owned(), value.into()]);
    }

    fn machine(&mut self, spec: &QemuSpec, place: &Place, order: &StartOrder, accelerator: &str) {
        self.pair("-name", format!("guest={},debug-threads=on", place.group));
        self.args.extend(["-nodefaults", "-no-user-config", "-S", "-daemonize"].map(str::to_owned));
        self.pair("-display", "none");
        self.pair("-sandbox", "on,obsolete=deny");
        self.pair("-accel", accelerator);
        self.pair("-machine", &spec.machine);
        match &spec.cpu {
            Some(model) => self.pair("-cpu", model),
            None if accelerator == "kvm" => self.pair("-cpu", "host"),
            None => {}
        }
        self.pair("-m", format!("{}M", spec.memory.mib));
        self.pair("-smp", spec.cpus.to_string());
        self.pair("-uuid", guest_uuid(place.group.as_str()));
        let identity = [
            ("group", place.group.to_string()),
            ("epoch", order.epoch.0.to_string()),
            ("host", place.host.to_string()),
            ("host_epoch", order.host_epoch.0.to_string()),
        ];
        let strings: String =
            identity.iter().map(|(name, value)| format!(",value={SMBIOS_PREFIX}{name}={value}")).collect();
        self.pair("-smbios", format!("type=11{strings}"));
        self.pair("-object", "rng-random,id=rng0,filename=/dev/urandom");
        self.pair("-device", "virtio-rng-pci,rng=rng0");
        if let Some(kernel) = &spec.kernel {
            self.pair("-kernel", kernel.display().to_string());
        }
        if let Some(initrd) = &spec.initrd {
            self.pair("-initrd", initrd.display().to_string());
        }
        if let Some(append) = &spec.append {
            self.pair("-append", self.words.fill(append));
        }
    }

    fn monitors(&mut self, runtime: &QemuRuntime, volumes: &[VolumeAt]) {
        self.pair("-pidfile", runtime.pid_file().display().to_string());
        let names = volumes.iter().map(|volume| volume.name.as_str());
        for (index, path) in runtime.monitors(names).iter().enumerate() {
            self.pair("-chardev", format!("socket,id=qmp{index},path={},server=on,wait=off", escape(path)));
            self.pair("-mon", format!("chardev=qmp{index},mode=control"));
        }
    }

    fn drives(&mut self, spec: &QemuSpec, order: &StartOrder, found: &Found) {
        let all = || order.volumes.iter().map(|v| DriveSpec { volume: v.name.clone(), cache: CacheMode::None });
        let drives: Vec<DriveSpec> = spec.drives.clone().unwrap_or_else(|| all().collect());
        for drive in &drives {
            let Some(index) = order.volumes.iter().position(|volume| volume.name == drive.volume) else { continue };
            let (name, path) = (&drive.volume, &order.volumes[index].path);
            let driver = if found.is_device[index] { "host_device" } else { "file" };
            let protocol = json!({ "driver": driver, "node-name": format!("file-{name}"), "filename": path,
                "locking": "on", "cache": { "direct": true, "no-flush": false } });
            let format = json!({ "driver": "raw", "node-name": volume_node(name), "file": format!("file-{name}"),
                "cache": { "direct": true, "no-flush": false } });
            self.pair("-blockdev", protocol.to_string());
            self.pair("-blockdev", format.to_string());
            let write_cache = match drive.cache {
                CacheMode::None => "on",
                CacheMode::Writethrough => "off",
            };
            let node = volume_node(name);
            self.pair(
                "-device",
                format!("virtio-blk-pci,id=disk-{name},drive={node},serial={name},write-cache={write_cache}"),
            );
        }
    }

    fn channels(&mut self, spec: &QemuSpec) {
        if spec.channels.iter().any(|channel| channel.kind == ChannelKind::Virtio) {
            self.pair("-device", "virtio-serial-pci");
        }
        for (index, channel) in spec.channels.iter().enumerate() {
            // Reconnecting: the listener may come later than the guest, and may be restarted.
            let path = escape(&channel.path);
            self.pair("-chardev", format!("socket,id=channel{index},path={path},server=off,reconnect=1"));
            match channel.kind {
                ChannelKind::Virtio => {
                    self.pair("-device", format!("virtserialport,chardev=channel{index},name={}", channel.name));
                }
                ChannelKind::Serial => self.pair("-serial", format!("chardev:channel{index}")),
            }
        }
    }
}

/// QEMU's comma-separated options double a comma that belongs to a value.
fn escape(path: &std::path::Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Begin;
    use quorum::id::{Epoch, Era, HostEpoch};
    use std::path::PathBuf;
    use std::time::Duration;

    fn place() -> Place {
        Place {
            group: "erp".parse().unwrap(),
            host: "tk-k1".parse().unwrap(),
            cgroup: "/sys/fs/cgroup/antipode.slice/erp".into(),
            pinned: "/sys/fs/cgroup/antipode.slice/pinned/erp".into(),
            runtime: "/run/antipode/erp".into(),
        }
    }

    fn order() -> StartOrder {
        StartOrder {
            epoch: Epoch::in_era(Era(1), 7),
            host_epoch: HostEpoch::in_era(Era(1), 3),
            volumes: vec![VolumeAt { name: "root".into(), path: PathBuf::from("/vol/a,b.raw") }],
            begin: Begin::Running,
            limit: Duration::from_secs(9),
        }
    }

    fn line(spec: &str) -> Result<Vec<String>, WorkloadError> {
        let found = Found { accelerator: "tcg", is_device: vec![false] };
        command_line(&toml::from_str(spec).unwrap(), &place(), &order(), &found)
    }

    fn value<'a>(args: &'a [String], name: &str) -> Vec<&'a str> {
        args.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn drives_bypass_the_page_cache_and_lock_their_images() {
        let args = line("memory = \"96MiB\"").unwrap();
        let drives = value(&args, "-blockdev");
        assert!(
            drives.iter().all(|drive| drive.contains("\"cache\":{\"direct\":true,\"no-flush\":false}")),
            "{drives:?}"
        );
        assert!(drives[0].contains("\"locking\":\"on\"") && drives[0].contains("/vol/a,b.raw"));
        assert!(args.contains(&"-S".to_owned()) && args.contains(&"-daemonize".to_owned()));
    }

    #[test]
    fn the_grant_is_readable_in_the_guest() {
        let args = line("memory = \"96MiB\"\nkernel = \"/k\"\nappend = \"e={epoch} h={host} {other}\"").unwrap();
        let epoch = order().epoch.0;
        assert_eq!(value(&args, "-append"), [format!("e={epoch} h=tk-k1 {{other}}")]);
        let smbios = value(&args, "-smbios")[0];
        assert!(smbios.contains(&format!("value=antipode.epoch={epoch}")) && smbios.contains("antipode.host=tk-k1"));
    }

    #[test]
    fn writethrough_hides_the_write_cache_from_the_guest() {
        let args = line("memory = \"1GiB\"\ndrives = [{ volume = \"root\", cache = \"writethrough\" }]").unwrap();
        assert!(value(&args, "-device").iter().any(|device| device.contains("write-cache=off")));
    }

    #[test]
    fn a_spec_that_would_undo_the_drivers_work_is_refused_with_every_problem() {
        let error = line(
            "memory = \"1GiB\"\ninitrd = \"/i\"\nextra_args = [\"-snapshot\", \"--qmp\"]\n\
             drives = [{ volume = \"other\" }]",
        )
        .unwrap_err()
        .to_string();
        for part in ["-snapshot", "-qmp", "other", "need kernel"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_derived_from_the_group_are_stable_and_fit() {
        assert_eq!(tap_name("erp", 0), tap_name("erp", 0));
        assert_ne!(tap_name("erp", 0), tap_name("erp-db", 0));
        assert!(tap_name("erp", 99).len() <= 15);
        let uuid = guest_uuid("erp");
        assert_eq!((uuid.len(), &uuid[14..15], &uuid[19..20]), (36, "8", "a"));
    }
}
