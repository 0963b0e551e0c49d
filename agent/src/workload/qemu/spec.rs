//! What the cluster spec says about a QEMU guest at one place.
//!
//! Unknown keys are refused. Nothing here touches the machine; `args` makes a command line of it.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A guest run directly by QEMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuSpec {
    /// Guest memory, such as `"96MiB"` or `"4GiB"`.
    pub memory: MemorySize,
    /// Processors of the guest, 1 to 1024.
    #[serde(default = "one")]
    pub cpus: u16,
    /// Machine type with its options.
    #[serde(default = "default_machine")]
    pub machine: String,
    /// Processor model; by default the host's under KVM and QEMU's own otherwise.
    #[serde(default)]
    pub cpu: Option<String>,
    /// How guest instructions are executed.
    #[serde(default)]
    pub accelerator: AcceleratorChoice,
    /// A kernel to start directly instead of booting from the first drive.
    #[serde(default)]
    pub kernel: Option<PathBuf>,
    /// The kernel's initial RAM disk.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line. `{group}`, `{epoch}`, `{host}` and `{host_epoch}` are filled in.
    #[serde(default)]
    pub append: Option<String>,
    /// The group's volumes in the order in which the guest sees them; by default all, in the group's order.
    #[serde(default)]
    pub drives: Option<Vec<DriveSpec>>,
    /// Network cards.
    #[serde(default)]
    pub nics: Vec<NicSpec>,
    /// Byte channels between the guest and a listening Unix socket on the host.
    #[serde(default)]
    pub channels: Vec<ChannelSpec>,
    /// More arguments for QEMU, with the same words filled in as in `append`. Those that would undo what the driver
    /// relies on (monitor, process id file, start state, migration, snapshots) are refused.
    #[serde(default)]
    pub extra_args: Vec<String>,
}

fn one() -> u16 {
    1
}

fn default_machine() -> String {
    "q35".into()
}

/// Which accelerator the spec asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorChoice {
    /// KVM where a probe shows that it works, else emulation.
    #[default]
    Auto,
    /// KVM, or the preflight refuses.
    Kvm,
    /// Emulation.
    Tcg,
}

/// One volume as the guest's drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveSpec {
    /// The volume's name.
    pub volume: String,
    /// How the guest's writes are treated.
    #[serde(default)]
    pub cache: CacheMode,
}

/// How a drive treats the guest's writes. The host's page cache is bypassed in both (protocol §2: no dirty page of a
/// protected volume is left when the process is gone).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// The guest sees a disk with a write cache and flushes it.
    #[default]
    None,
    /// Every write is flushed before it is answered.
    Writethrough,
}

/// One network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicSpec {
    /// The bridge on this host that it is plugged into.
    pub bridge: String,
    /// Its hardware address at this place.
    pub mac: MacAddress,
}

/// One byte channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelSpec {
    /// Its name in the guest (a virtio port's name).
    pub name: String,
    /// The Unix socket that QEMU connects to, again and again until somebody listens.
    pub path: PathBuf,
    /// The guest's device.
    #[serde(default)]
    pub kind: ChannelKind,
}

/// The guest's device for a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// A named virtio port.
    #[default]
    Virtio,
    /// A serial port.
    Serial,
}

/// An amount of memory in whole MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// The amount in MiB, at least 1.
    pub mib: u64,
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}MiB", self.mib)
    }
}

impl Serialize for MemorySize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemorySize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = |suffix: &str, mib: u64| text.strip_suffix(suffix)?.trim().parse::<u64>().ok()?.checked_mul(mib);
        match read("MiB", 1).or_else(|| read("GiB", 1024)) {
            Some(mib) if mib > 0 => Ok(Self { mib }),
            _ => Err(serde::de::Error::custom(format!("memory is written as \"512MiB\" or \"4GiB\", not {text:?}"))),
        }
    }
}

/// A hardware address of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for MacAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("a card's address is written as \"52:54:00:12:34:56\", not {text:?}");
        let parts: Vec<&str> = text.split(':').collect();
        let mut bytes = [0; 6];
        if parts.len() != bytes.len() {
            return Err(wrong());
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            if part.len() != 2 {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if bytes[0] & 1 == 1 {
            return Err(format!("{text:?} is a group address, which no card can have"));
        }
        Ok(Self(bytes))
    }
}

impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_needs_little_and_fills_in_the_rest() {
        let spec: QemuSpec = toml::from_str("memory = \"96MiB\"").unwrap();
        assert_eq!((spec.memory.mib, spec.cpus, spec.machine.as_str()), (96, 1, "q35"));
        assert_eq!(spec.accelerator, AcceleratorChoice::Auto);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_name() {
        let error = toml::from_str::<QemuSpec>("memory = \"1GiB\"\nmemroy = 3").unwrap_err();
        assert!(error.to_string().contains("memroy"), "{error}");
        let error = toml::from_str::<QemuSpec>(
            "memory = \"1GiB\"\nnics = [{ bridge = \"br0\", mac = \"52:54:00:00:00:01\", vlan = 3 }]",
        );
        assert!(error.unwrap_err().to_string().contains("vlan"));
    }

    #[test]
    fn sizes_and_card_addresses_say_how_they_are_written() {
        for bad in ["96", "0MiB", "1.5GiB", "-1MiB", "99999999999999999999GiB"] {
            assert!(toml::from_str::<QemuSpec>(&format!("memory = {bad:?}")).is_err(), "{bad}");
        }
        assert!("52:54:00:12:34:5".parse::<MacAddress>().is_err());
        assert!("01:00:5e:00:00:01".parse::<MacAddress>().is_err());
        let mac: MacAddress = "52:54:00:ab:cd:ef".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
    }
}
