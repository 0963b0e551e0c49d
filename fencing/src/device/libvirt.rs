//! `libvirt`: the power of a VM through its hypervisor's libvirtd, by `virsh`.
//!
//! For a host that is a VM, and (with `proves = "hypervisor"`) for the VM in which one group runs. `destroy` is the
//! only order ever given. Only the state "shut off" of a persistent domain is off: a paused, crashed or dying one is
//! not, and a domain that libvirtd doesn't know may run elsewhere. A qemu that hangs still says "running", and its
//! `destroy` takes libvirtd more than ten seconds, so limits under 20 s are refused.
//! Not here: what libvirtd can't know (a qemu whose state it lost is "shut off" to it: `docs/libvirt.md`).

use super::{BoxFuture, Call, Device, Kind, Sight, rhythm};
use crate::facts::{DeviceFacts, Proves};
use crate::params::{Key, PROVES_KEYS, Params};
use crate::process::{Finished, Program};
use crate::reading::{Observed, Power};
use crate::secret::Mask;
use crate::session::Act;
use crate::target::{MachineUuid, ReportedIdentity};
use crate::topology::Problem;
use crate::trouble::Trouble;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "libvirt",
    about: "the power of a VM, through its hypervisor's libvirtd (virsh)",
    keys: &[
        Key { name: "uri", about: "the connection, as qemu+tls://hyp-1/system" },
        Key { name: "domain", about: "the VM's name or UUID" },
        Key {
            name: "hypervisor_uuid",
            about: "the hypervisor of record's own UUID; checked in every reading if given",
        },
        Key { name: "program", about: "path of virsh" },
        PROVES_KEYS[0],
        PROVES_KEYS[2],
    ],
    build,
};

/// libvirtd waits 10 s for a hung qemu before it kills it.
const OFF_LIMIT_MIN: Duration = Duration::from_secs(20);
/// Nothing mechanical has to settle; what could bring the VM back is another manager.
const SETTLE_MIN: Duration = Duration::from_millis(500);

struct Libvirt {
    facts: DeviceFacts,
    program: PathBuf,
    uri: String,
    domain: String,
    hypervisor: Option<MachineUuid>,
}

fn build(mut params: Params) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let common = params.common();
    let rhythm = params.rhythm(rhythm(15_000, 30_000, 250, 1_000, 30_000), SETTLE_MIN);
    let uri = params.required::<String>("uri");
    let domain = params.required::<String>("domain");
    let hypervisor = params.parsed::<HypervisorUuid>("hypervisor_uuid").map(|uuid| uuid.0);
    let program = params.program("program", "virsh");
    let proves = params.proves();
    if rhythm.off_limit < OFF_LIMIT_MIN {
        params.problem(
            "off_limit",
            format!("{:?} is too short", rhythm.off_limit),
            "use 20s or more: a hung VM takes libvirtd 11 s".into(),
        );
    }
    if uri.as_ref().is_some_and(|uri| uri.starts_with('-') || uri.contains(char::is_whitespace)) {
        params.problem("uri", "isn't a libvirt URI".into(), "write it as qemu+tls://host/system".into());
    }
    let plain = |domain: &String| {
        !domain.starts_with('-') && domain.chars().all(|c| c.is_ascii_alphanumeric() || "_.:@+-".contains(c))
    };
    if domain.as_ref().is_some_and(|domain| !plain(domain)) {
        params.problem(
            "domain",
            "has characters that virsh's command line would take apart".into(),
            "use the VM's UUID".into(),
        );
    }
    if matches!(proves, Some(Proves::Feeds(_) | Proves::Network)) {
        params.problem("proves", "doesn't fit a VM".into(), "use machine or hypervisor".into());
    }
    let device = common.zip(uri).zip(domain).zip(proves).map(|(((common, uri), domain), proves)| {
        // libvirtd takes many clients at once, so its devices needn't take turns: the domain is the endpoint.
        let facts = common.facts(KIND.name, proves, rhythm, &format!("{uri} {domain}"));
        Arc::new(Libvirt { facts, program, uri, domain, hypervisor }) as Arc<dyn Device>
    });
    params.finish(device)
}

struct HypervisorUuid(MachineUuid);

impl std::str::FromStr for HypervisorUuid {
    type Err = crate::target::BadUuid;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        MachineUuid::parse(text).map(Self)
    }
}

impl Libvirt {
    fn virsh(&self, command: String) -> Program {
        // Keepalive: a hypervisor that dies under us must not hold the call until its limit.
        Program::new(&self.program).args(["-q", "-k", "2", "-K", "2", "-c", &self.uri]).arg(command)
    }

    fn question(&self) -> String {
        let info = format!("dominfo {}", self.domain);
        if self.hypervisor.is_some() { format!("{info}; capabilities") } else { info }
    }
}

/// What virsh's words mean, of a domain that must be at `hypervisor` if one is named.
pub(super) fn sight(finished: &Finished, hypervisor: Option<MachineUuid>) -> Result<Sight, Trouble> {
    if finished.code != Some(0) {
        return Err(trouble(finished));
    }
    let field = |name: &str| {
        let lines = finished.stdout.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim()).next()
    };
    let (Some(state), Some(uuid)) = (field("State"), field("UUID")) else {
        // virsh goes on with its next command after one that failed, and ends with that one's code.
        if finished.stderr.contains("error:") {
            return Err(trouble(finished));
        }
        let because = Mask::default().hide(&format!("no state and UUID in: {}", finished.stdout));
        return Err(Trouble::Garbled { because });
    };
    if field("Persistent") != Some("yes") {
        let because = "the domain is transient: once destroyed, nothing of it can be read; define it".to_owned();
        return Err(Trouble::Unusable { because });
    }
    check_hypervisor(&finished.stdout, hypervisor)?;
    let uuid = MachineUuid::parse(uuid).map_err(|error| Trouble::Garbled { because: error.to_string() })?;
    let power = match state {
        "running" => Power::On,
        "shut off" => Power::Off,
        other => Power::Between(Mask::default().hide(other)),
    };
    Ok(Sight::new(Observed::Power(power), ReportedIdentity::of(Some(uuid), [])))
}

fn check_hypervisor(stdout: &str, hypervisor: Option<MachineUuid>) -> Result<(), Trouble> {
    let Some(expected) = hypervisor else { return Ok(()) };
    let xml = stdout.find("<capabilities>").map(|start| &stdout[start..]).unwrap_or_default();
    let document = roxmltree::Document::parse(xml.trim());
    let uuid = document.ok().and_then(|document| {
        let host = document.root_element().children().find(|node| node.has_tag_name("host"))?;
        let uuid = host.children().find(|node| node.has_tag_name("uuid"))?;
        MachineUuid::parse(uuid.text()?).ok()
    });
    match uuid {
        Some(uuid) if uuid.is_same_machine(expected) => Ok(()),
        Some(uuid) => Err(Trouble::WrongMachine {
            expected: format!("hypervisor {expected}"),
            reported: format!("hypervisor {uuid}"),
        }),
        None => Err(Trouble::Garbled { because: "the hypervisor doesn't tell its UUID".to_owned() }),
    }
}

fn trouble(finished: &Finished) -> Trouble {
    let because = Mask::default().hide(&format!("{}: {}", finished.ending(), finished.stderr));
    let said = |words: &[&str]| words.iter().any(|word| finished.stderr.contains(word));
    if said(&["failed to get domain", "Domain not found"]) {
        let because = "libvirtd doesn't know the domain: it may run elsewhere, so nothing follows".to_owned();
        Trouble::Refused { because }
    } else if said(&["authentication failed", "Permission denied"]) {
        Trouble::LoginRefused { because }
    } else if said(&["certificate"]) {
        Trouble::Untrusted { because }
    } else if said(&["failed to connect to the hypervisor", "Unable to resolve", "Connection refused"]) {
        Trouble::Unreachable { because }
    } else {
        Trouble::Refused { because }
    }
}

impl Device for Libvirt {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>> {
        Box::pin(async {
            let finished = self.virsh(self.question()).run(&call.leash).await?;
            sight(&finished, self.hypervisor)
        })
    }

    fn off<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async {
            let program = self.virsh(format!("destroy {}", self.domain));
            call.check()?;
            let finished = program.run(&call.leash).await?;
            if finished.code == Some(0) { Ok(()) } else { Err(trouble(&finished)) }
        })
    }

    fn preview(&self, act: Act) -> Vec<String> {
        let command = if act == Act::Off { format!("destroy {}", self.domain) } else { self.question() };
        vec![self.virsh(command).shown()]
    }
}
