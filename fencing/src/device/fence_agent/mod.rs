//! `fence_agent`: any ClusterLabs fence agent through its standard-input contract; some 85 devices in one kind.
//!
//! The agent's exit code to `off` proves nothing: we run its `status` ourselves, and only exit code 2 is off. Its
//! options are held against its own metadata. `reboot` and `cycle` are never used. Agents whose `status` isn't about
//! power (a message slot, a registered key, a ping) are refused as evidence.
//! Not here: the agents themselves; the page `docs/fence_agent.md` says what they can't do.

pub mod metadata;

use super::{BoxFuture, Call, Device, Kind, SETTLE_MIN, Sight, rhythm};
use crate::facts::{DeviceFacts, Proves, Rhythm};
use crate::params::{Key, PROVES_KEYS, Params, endpoint_of};
use crate::process::{Finished, Program, Standby};
use crate::reading::{Observed, Power};
use crate::secret::{Mask, Secret, SecretRef};
use crate::session::Act;
use crate::target::ReportedIdentity;
use crate::topology::Problem;
use crate::trouble::Trouble;
use metadata::Metadata;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use toml::{Table, Value};

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "fence_agent",
    about: "any ClusterLabs fence agent (PDUs, blade chassis, clouds, hypervisors, switches)",
    keys: &[
        Key { name: "agent", about: "the agent's name or path, as fence_apc_snmp" },
        Key { name: "options", about: "the agent's parameters (table)" },
        Key { name: "secrets", about: "parameters that are secrets, by reference (table)" },
        PROVES_KEYS[0],
        PROVES_KEYS[1],
        PROVES_KEYS[2],
    ],
    build,
};

/// Agents whose `status` says nothing of the host's power.
const NOT_POWER: [(&str, &str); 8] = [
    ("fence_sbd", "its status is the message in the slot; use kind \"sbd\""),
    ("fence_scsi", "its status is a registered key; use kind \"reservation\""),
    ("fence_mpath", "its status is a registered key; use kind \"reservation\""),
    ("fence_kdump", "it only says that a crash dump was begun"),
    ("fence_heuristics_ping", "it only pings"),
    ("fence_watchdog", "it only waits"),
    ("fence_compute", "its status is a cloud's opinion of a service"),
    ("fence_evacuate", "its status is a cloud's opinion of a service"),
];

/// Exit codes of `status`.
const STATUS_ON: i32 = 0;
const STATUS_OFF: i32 = 2;

/// An agent still at work on `off` after this is given a second one at its side that gets ready for `status`: most of
/// a `status` is Python starting. Later than the first one needs to start itself, so that they don't slow each other.
const READY_AFTER: Duration = Duration::from_millis(600);
/// How much longer than the next reading may take an agent stands by.
const STANDBY_SLACK: Duration = Duration::from_secs(5);

struct FenceAgent {
    facts: DeviceFacts,
    agent: PathBuf,
    options: BTreeMap<String, String>,
    secrets: BTreeMap<String, SecretRef>,
    metadata: OnceCell<Metadata>,
    /// An agent of an order under way that waits to be told what to do. It knows nothing, so it can do nothing.
    standby: Mutex<Option<Standby>>,
}

fn build(mut params: Params) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let common = params.common();
    let rhythm = params.rhythm(rhythm(30_000, 60_000, 500, 1_000, 15_000), SETTLE_MIN);
    let agent = params.required::<PathBuf>("agent");
    let options = options(&mut params);
    let secrets = params.secrets("secrets");
    let proves = params.proves();
    let name = agent.as_ref().and_then(|agent| agent.file_name()).map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    if let Some((_, why)) = NOT_POWER.iter().find(|(agent, _)| *agent == name) {
        params.problem("agent", format!("{name} gives no evidence"), (*why).to_owned());
    }
    let device = common.zip(agent).zip(proves).map(|((mut common, agent), proves)| {
        // A file on disk that plays a machine is never production's evidence.
        common.lab |= name == "fence_dummy";
        let address = options.get("ip").or_else(|| options.get("ipaddr")).map_or("", String::as_str);
        let port = options.get("ipport").and_then(|port| port.parse().ok());
        let facts = common.facts(KIND.name, proves, rhythm, &endpoint_of(address, port));
        Arc::new(FenceAgent { facts, agent, options, secrets, metadata: OnceCell::new(), standby: Mutex::default() })
            as Arc<dyn Device>
    });
    params.finish(device)
}

fn options(params: &mut Params) -> BTreeMap<String, String> {
    let table: Table = params.table("options");
    let mut options = BTreeMap::new();
    for (name, value) in table {
        let key = format!("options.{name}");
        let text = match value {
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(flag) => String::from(if flag { "1" } else { "0" }),
            other => {
                params.problem(
                    &key,
                    format!("is {}", other.type_str()),
                    "write a text, a number, true or false".into(),
                );
                continue;
            }
        };
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if text.contains(['\n', '\r', '\0']) || !plain {
            params.problem(&key, "can't be handed to an agent".into(), "use one line, and a plain name".into());
        }
        if matches!(name.as_str(), "action" | "option") {
            params.problem(&key, "is ours to choose".into(), "remove it".into());
        }
        if name == "method" && text == "cycle" {
            params.problem(
                &key,
                "a power cycle ends in \"on\"".into(),
                "remove it: off is all that is ever asked".into(),
            );
        }
        if matches!(name.as_str(), "password" | "passwd" | "secret_key" | "community" | "snmp_priv_passwd") {
            params.problem(&key, "is a secret".into(), format!("write it as secrets.{name} = {{ file = \"/path\" }}"));
        }
        options.insert(name, text);
    }
    options
}

impl FenceAgent {
    async fn ask(&self, action: &str, call: &Call) -> Result<(Finished, Mask), Trouble> {
        let mut input = format!("action={action}\n");
        let mut mask = Mask::default();
        for (name, value) in &self.options {
            let _ = writeln!(input, "{name}={value}");
        }
        for (name, reference) in &self.secrets {
            let secret = reference.read()?;
            let _ = writeln!(input, "{name}={}", secret.expose());
            mask.add(secret);
        }
        let (program, input) = (Program::new(&self.agent), Secret::new(input));
        let finished = if action == "off" {
            call.check()?;
            program.input(input).run(&call.leash).await?
        } else {
            let ready = self.standby().take().filter(|standby| standby.lasts(call.leash.limit));
            match ready {
                Some(standby) => standby.run(&input, &call.leash).await?,
                None => program.input(input).run(&call.leash).await?,
            }
        };
        Ok((finished, mask))
    }

    fn standby(&self) -> std::sync::MutexGuard<'_, Option<Standby>> {
        // Nothing panics while holding it.
        self.standby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an agent get ready for the next reading of an order. If it can't, the reading starts its own and says why.
    fn get_ready(&self) {
        let Rhythm { read_limit, poll, settle, .. } = self.facts.rhythm;
        let until = Instant::now() + read_limit + settle.max(poll) + STANDBY_SLACK;
        *self.standby() = Program::new(&self.agent).stand_by(until).ok();
    }

    /// Checks, once in a process's life, that the agent is what its configuration takes it for.
    async fn validate(&self, call: &Call) -> Result<(), Trouble> {
        let metadata = self.metadata.get_or_try_init(|| Metadata::of(&self.agent, &call.leash)).await?;
        let options = self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let secrets = self.secrets.keys().map(|name| (name.as_str(), "0"));
        let mut complaints = metadata.complaints(options.chain(secrets));
        for action in ["off", "status"] {
            if !metadata.can(action) {
                complaints.push(format!("it can't do `{action}`"));
            }
        }
        let is_power = match self.facts.proves {
            Proves::Machine | Proves::Feeds(_) | Proves::Hypervisor(_) => true,
            Proves::Network | Proves::Storage(_) | Proves::Nothing(_) | Proves::Elsewhere(_) => false,
        };
        if metadata.is_fabric() && is_power {
            complaints.push("it cuts a path and not power: set proves = \"network\"".to_owned());
        }
        if complaints.is_empty() { Ok(()) } else { Err(Trouble::Unusable { because: complaints.join("; ") }) }
    }
}

impl Device for FenceAgent {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>> {
        Box::pin(async {
            self.validate(call).await?;
            let (finished, mask) = self.ask("status", call).await?;
            if !call.behind.target.is_empty() {
                self.get_ready();
            }
            let off = match finished.code {
                Some(STATUS_ON) => false,
                Some(STATUS_OFF) => true,
                Some(_) | None => {
                    let because = mask.hide(&format!("status: {}, {}", finished.ending(), finished.last_words()));
                    return Err(if is_login_refusal(&finished) {
                        Trouble::LoginRefused { because }
                    } else {
                        Trouble::Refused { because }
                    });
                }
            };
            let observed = match (&self.facts.proves, off) {
                (Proves::Network, _) => Observed::Isolated(off),
                (_, true) => Observed::Power(Power::Off),
                (_, false) => Observed::Power(Power::On),
            };
            Ok(Sight::new(observed, ReportedIdentity::none()))
        })
    }

    fn off<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async {
            // An attested device is told before it is ever read: an option that the agent doesn't know could name another plug.
            self.validate(call).await?;
            let mut asked = std::pin::pin!(self.ask("off", call));
            let (finished, mask) = tokio::select! {
                biased;
                asked = &mut asked => asked?,
                () = tokio::time::sleep(READY_AFTER) => {
                    self.get_ready();
                    asked.await?
                }
            };
            if finished.code == Some(0) {
                return Ok(());
            }
            let because = mask.hide(&format!("off: {}, {}", finished.ending(), finished.last_words()));
            Err(if is_login_refusal(&finished) {
                Trouble::LoginRefused { because }
            } else {
                Trouble::Refused { because }
            })
        })
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { drop(self.standby().take()) })
    }

    fn preview(&self, act: Act) -> Vec<String> {
        let action = if act == Act::Off { "off" } else { "status" };
        let mut text = format!("{} <<< action={action}", Program::new(&self.agent).shown());
        for (name, value) in &self.options {
            let _ = write!(text, " {name}={value}");
        }
        for name in self.secrets.keys() {
            let _ = write!(text, " {name}={}", crate::secret::MASKED);
        }
        vec![text]
    }
}

/// The agents' library has one sentence for it; trying on may lock the account.
pub(super) fn is_login_refusal(finished: &Finished) -> bool {
    finished.stderr.contains("Unable to connect/login to fencing device") && finished.stderr.contains("Invalid")
        || finished.stderr.contains("Login Incorrect")
        || finished.stderr.contains("401")
}
