//! `command`: your own adapter program, spoken to in JSON. The contract is in `docs/command.md`.
//!
//! One run per call: one object on standard input, one on standard output. What it says of the state is taken as a
//! device's word, with the same rules as for every kind: read twice, identity in every reading.
//! Not here: what the program talks to.

use super::{BoxFuture, Call, Device, Kind, SETTLE_MIN, Sight, rhythm};
use crate::facts::{DeviceFacts, Proves};
use crate::params::{Key, PROVES_KEYS, Params};
use crate::process::{Finished, Program};
use crate::reading::{Observed, Power, Standing};
use crate::secret::{Mask, Secret, SecretRef};
use crate::session::Act;
use crate::target::{MachineUuid, ReportedIdentity};
use crate::topology::Problem;
use crate::trouble::Trouble;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::Table;

/// The version of the contract.
const API_VERSION: u32 = 1;

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "command",
    about: "an adapter program of your own, spoken to in JSON",
    keys: &[
        Key { name: "program", about: "the program's path" },
        Key { name: "args", about: "its arguments (list); never secrets" },
        Key { name: "settings", about: "a table handed to it as it stands" },
        Key {
            name: "secrets",
            about: "a table of references to secrets; their values are handed to it on standard input",
        },
        PROVES_KEYS[0],
        PROVES_KEYS[1],
        PROVES_KEYS[2],
    ],
    build,
};

struct Command {
    facts: DeviceFacts,
    program: PathBuf,
    args: Vec<String>,
    settings: Table,
    secrets: BTreeMap<String, SecretRef>,
}

fn build(mut params: Params) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let common = params.common();
    let rhythm = params.rhythm(rhythm(10_000, 20_000, 500, 1_000, 10_000), SETTLE_MIN);
    let program = params.required::<PathBuf>("program");
    let (args, settings, secrets) = (params.list("args"), params.table("settings"), params.secrets("secrets"));
    let proves = params.proves();
    if program.as_ref().is_some_and(|program| !program.is_absolute()) {
        params.problem("program", "isn't an absolute path".to_owned(), "write the whole path".to_owned());
    }
    let device = common.zip(program).zip(proves).map(|((common, program), proves)| {
        let facts = common.facts(KIND.name, proves, rhythm, "");
        Arc::new(Command { facts, program, args, settings, secrets }) as Arc<dyn Device>
    });
    params.finish(device)
}

#[derive(Serialize)]
struct Request<'a> {
    api_version: u32,
    act: Act,
    device: &'a str,
    host: &'a str,
    he: u64,
    era: u64,
    term: u64,
    index: u64,
    limit_ms: u64,
    settings: &'a Table,
    secrets: BTreeMap<&'a str, &'a str>,
}

/// What the adapter says.
#[derive(Deserialize)]
pub(super) struct Reply {
    api_version: u32,
    power: Option<String>,
    isolated: Option<bool>,
    vm: Option<Standing>,
    #[serde(default)]
    accepted: bool,
    #[serde(default)]
    identity: ReplyIdentity,
    #[serde(default)]
    lab: bool,
    error: Option<ReplyError>,
}

#[derive(Default, Deserialize)]
struct ReplyIdentity {
    uuid: Option<String>,
    serial: Option<String>,
}

#[derive(Deserialize)]
struct ReplyError {
    kind: String,
    #[serde(default)]
    text: String,
}

impl Command {
    async fn ask(&self, act: Act, call: &Call) -> Result<Reply, Trouble> {
        let mut values = BTreeMap::new();
        for (name, reference) in &self.secrets {
            values.insert(name.as_str(), reference.read()?);
        }
        let mask = Mask::of(values.values().cloned());
        let left = call.leash.limit.saturating_duration_since(tokio::time::Instant::now());
        let program = self.program().input(self.request(act, call, left, &values)?);
        if act == Act::Off {
            call.check()?;
        }
        let finished = program.run(&call.leash).await?;
        understand(&finished, &mask)
    }

    fn program(&self) -> Program {
        Program::new(&self.program).args(self.args.clone())
    }

    fn request(
        &self,
        act: Act,
        call: &Call,
        left: Duration,
        values: &BTreeMap<&str, Secret>,
    ) -> Result<Secret, Trouble> {
        let request = Request {
            api_version: API_VERSION,
            act,
            device: self.facts.name.as_str(),
            host: &call.behind.target,
            he: call.behind.he,
            era: call.behind.stamp.era,
            term: call.behind.stamp.term,
            index: call.behind.stamp.index,
            limit_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            settings: &self.settings,
            secrets: values.iter().map(|(name, value)| (*name, value.expose())).collect(),
        };
        let text = serde_json::to_string(&request);
        let text = text.map_err(|error| Trouble::Unusable { because: format!("its settings aren't JSON: {error}") })?;
        Ok(Secret::new(text + "\n"))
    }
}

pub(super) fn understand(finished: &Finished, mask: &Mask) -> Result<Reply, Trouble> {
    let reply: Reply = match serde_json::from_str(&finished.stdout) {
        Ok(reply) => reply,
        Err(_) if finished.code != Some(0) => {
            let because = mask.hide(&format!("{}: {}", finished.ending(), finished.last_words()));
            return Err(Trouble::Refused { because });
        }
        Err(error) => {
            return Err(Trouble::Garbled {
                because: mask.hide(&format!("its output isn't the contract's JSON: {error}")),
            });
        }
    };
    if reply.api_version != API_VERSION {
        let because = format!("it speaks version {} of the contract, not {API_VERSION}", reply.api_version);
        return Err(Trouble::Garbled { because });
    }
    if let Some(error) = reply.error {
        return Err(error.into_trouble(mask));
    }
    if finished.code != Some(0) {
        return Err(Trouble::Garbled { because: format!("it reported no error and ended with {}", finished.ending()) });
    }
    Ok(reply)
}

impl ReplyError {
    fn into_trouble(self, mask: &Mask) -> Trouble {
        let because = mask.hide(&self.text);
        match self.kind.as_str() {
            "unreachable" => Trouble::Unreachable { because },
            "login-refused" => Trouble::LoginRefused { because },
            "untrusted" => Trouble::Untrusted { because },
            "unusable" => Trouble::Unusable { because },
            _ => Trouble::Refused { because },
        }
    }
}

fn power(word: &str) -> Power {
    match word {
        "off" => Power::Off,
        "on" => Power::On,
        other => Power::Between(Mask::default().hide(other)),
    }
}

/// What a reply to `read` says, of a device that proves `proves`.
pub(super) fn sight(proves: &Proves, reply: Reply) -> Result<Sight, Trouble> {
    let garbled = |because: &str| Trouble::Garbled { because: because.to_owned() };
    let observed = match (proves, reply.power.as_deref(), reply.isolated) {
        (Proves::Network, None, Some(isolated)) => Observed::Isolated(isolated),
        (Proves::Network, _, _) => return Err(garbled("it must say `isolated`, and nothing of power")),
        (Proves::Hypervisor(_), Some(word), None) => match reply.vm {
            None => Observed::Power(power(word)),
            Some(standing) => {
                let source = Mask::default().hide(&standing.source);
                Observed::Vm { power: power(word), standing: Standing { source, ..standing } }
            }
        },
        (_, Some(word), None) => Observed::Power(power(word)),
        (_, _, _) => return Err(garbled("it must say `power`, and nothing of isolation")),
    };
    let uuid = reply.identity.uuid.as_deref().map(MachineUuid::parse).transpose();
    let uuid = uuid.map_err(|error| Trouble::Garbled { because: error.to_string() })?;
    let identity = ReportedIdentity::of(uuid, reply.identity.serial);
    Ok(Sight { observed, identity, lab: reply.lab })
}

impl Device for Command {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>> {
        Box::pin(async { sight(&self.facts.proves, self.ask(Act::Read, call).await?) })
    }

    fn off<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async {
            let reply = self.ask(Act::Off, call).await?;
            let because = "it neither accepted nor reported an error".to_owned();
            if reply.accepted { Ok(()) } else { Err(Trouble::Garbled { because }) }
        })
    }

    fn preview(&self, act: Act) -> Vec<String> {
        let act = if act == Act::Off { "off" } else { "read" };
        vec![format!("{} <<< {{\"act\":\"{act}\", ...}}", self.program().shown())]
    }
}
