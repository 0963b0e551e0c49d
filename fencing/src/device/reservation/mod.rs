//! `reservation`: excludes a host from shared volumes by SCSI-3 persistent reservations.
//!
//! Proves that the host writes no more to these volumes, and nothing about its service: never enough alone. Who claims
//! and whom that excludes comes with the order, from the ledger. All paths and all volumes, or nothing.
//! Not here: the keys' meaning (`key`), the SCSI commands (`scsi`), the procedure (`claim`), multipathd's settings.

pub mod claim;
pub mod scsi;
pub(super) mod sgio;

pub use sgio::SgPath;

use super::blocking::Desk;
use super::{BoxFuture, Call, Device, Kind, Sight, rhythm};
use crate::facts::{DeviceFacts, Proves};
use crate::key::VolumeClaim;
use crate::name::VolumeName;
use crate::params::{Key, Params, parse_duration};
use crate::reading::{Access, Observed};
use crate::session::Act;
use crate::target::ReportedIdentity;
use crate::topology::Problem;
use crate::trouble::Trouble;
use claim::{Aptpl, Memory, Policy, Volume};
use scsi::{Path, Sort};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use toml::{Table, Value};

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "reservation",
    about: "excludes a host from shared volumes (SCSI-3 persistent reservations)",
    keys: &[
        Key { name: "volumes", about: "list of tables: name, wwid (VPD page 83h or serial), paths (every path to it)" },
        Key { name: "reservation", about: "registrants-only (type 5, default) or all-registrants (type 7)" },
        Key { name: "aptpl", about: "prefer (default), require or never: keep registrations through a loss of power" },
        Key { name: "drain", about: "the initiators' longest command, where a target can't abort (default 60s)" },
    ],
    build,
};

/// Opens a path to a logical unit.
pub type Open = Arc<dyn Fn(&std::path::Path) -> Result<Box<dyn Path>, String> + Send + Sync>;

/// A volume as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Its name.
    pub name: VolumeName,
    /// What its designators or its serial number must be.
    pub wwid: String,
    /// Every path to it from here.
    pub paths: Vec<PathBuf>,
}

/// Reservations on a set of volumes.
pub struct Reservation {
    facts: DeviceFacts,
    inner: Arc<Inner>,
    desk: Desk,
}

struct Inner {
    volumes: Vec<Shared>,
    policy: Policy,
    open: Open,
    memory: Mutex<BTreeMap<VolumeName, Memory>>,
}

fn build(mut params: Params) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let common = params.common();
    let rhythm = params.rhythm(rhythm(15_000, 20_000, 500, 1_000, 10_000), Duration::from_millis(500));
    let sort = match params.word("reservation", &["registrants-only", "all-registrants"]) {
        Some("all-registrants") => Sort::AllRegistrants,
        Some(_) | None => Sort::RegistrantsOnly,
    };
    let aptpl = match params.word("aptpl", &["prefer", "require", "never"]) {
        Some("require") => Aptpl::Require,
        Some("never") => Aptpl::Never,
        Some(_) | None => Aptpl::Prefer,
    };
    let drain = params.text("drain").map_or(Some(Duration::from_secs(60)), |text| parse_duration(&text));
    if drain.is_none_or(|drain| drain < Duration::from_secs(1)) {
        params.problem(
            "drain",
            "isn't a span of 1s or more".into(),
            "write the initiators' I/O timeout, as 60s".into(),
        );
    }
    let volumes = volumes(&mut params);
    let device = common.zip(drain).map(|(common, drain)| {
        let names = volumes.iter().map(|volume| volume.name.clone()).collect();
        let facts = common.facts(KIND.name, Proves::Storage(names), rhythm, "");
        let open: Open = Arc::new(|path| SgPath::open(path).map(|path| Box::new(path) as Box<dyn Path>));
        let policy = Policy { sort, aptpl, drain };
        Arc::new(Reservation::new(facts, volumes, policy, open)) as Arc<dyn Device>
    });
    params.finish(device)
}

fn volumes(params: &mut Params) -> Vec<Shared> {
    let mut volumes = Vec::new();
    let mut names = BTreeSet::new();
    for table in params.tables("volumes") {
        match shared(&table) {
            Ok(volume) if names.insert(volume.name.clone()) => volumes.push(volume),
            Ok(volume) => {
                params.problem("volumes", format!("{} stands there twice", volume.name), "name each once".into())
            }
            Err(what) => {
                let remedy = "write { name = \"...\", wwid = \"...\", paths = [\"/dev/disk/by-path/...\"] }".to_owned();
                params.problem("volumes", what, remedy);
            }
        }
    }
    if volumes.is_empty() {
        params.problem("volumes", "names none".into(), "add at least one volume".into());
    }
    volumes
}

fn shared(table: &Table) -> Result<Shared, String> {
    if let Some(key) = table.keys().find(|key| !matches!(key.as_str(), "name" | "wwid" | "paths")) {
        return Err(format!("has an unknown key `{key}`"));
    }
    let text = |key: &str| table.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = VolumeName::new(text("name").unwrap_or_default()).map_err(|error| error.to_string())?;
    let wwid = text("wwid").ok_or_else(|| format!("{name} has no `wwid`"))?.to_owned();
    let paths = table.get("paths").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let paths: Option<Vec<PathBuf>> = paths.iter().map(|path| path.as_str().map(PathBuf::from)).collect();
    match paths.filter(|paths| !paths.is_empty() && paths.iter().all(|path| path.is_absolute())) {
        Some(paths) => Ok(Shared { name, wwid, paths }),
        None => Err(format!("{name} has no `paths`, or one isn't absolute")),
    }
}

impl Reservation {
    /// Reservations on `volumes`, whose paths `open` opens.
    pub fn new(facts: DeviceFacts, volumes: Vec<Shared>, policy: Policy, open: Open) -> Self {
        let memory = Mutex::new(BTreeMap::new());
        Self { facts, inner: Arc::new(Inner { volumes, policy, open, memory }), desk: Desk::new() }
    }
}

impl Inner {
    /// Opens every path of a volume and makes sure that it leads to that volume.
    fn open(&self, volume: &Shared) -> Result<claim::Paths, Trouble> {
        let mut paths = Vec::new();
        for path in &volume.paths {
            let name = path.display().to_string();
            let unusable = |because: String| Trouble::Unusable { because: format!("{name}: {because}") };
            let mut open = (self.open)(path).map_err(unusable)?;
            let identity = scsi::identity(&mut *open).map_err(|fault| unusable(fault.to_string()))?;
            let wanted = |found: &String| found.eq_ignore_ascii_case(volume.wwid.trim_start_matches("naa."));
            if !identity.iter().any(wanted) {
                let expected = format!("volume {} with wwid {}", volume.name, volume.wwid);
                return Err(Trouble::WrongMachine { expected, reported: format!("{name} is {}", identity.join(", ")) });
            }
            paths.push((name, open));
        }
        Ok(paths)
    }

    /// Does `work` on an opened volume, with what is remembered of it.
    fn with_volume<T>(
        &self,
        shared: &Shared,
        work: impl FnOnce(&mut Volume, &mut Memory) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let paths = self.open(shared)?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut volume = Volume { paths, policy: self.policy };
        work(&mut volume, memory.entry(shared.name.clone()).or_default())
    }

    fn claim_of<'a>(
        claims: &'a BTreeMap<VolumeName, VolumeClaim>,
        name: &VolumeName,
    ) -> Result<&'a VolumeClaim, Trouble> {
        let because =
            || format!("the order claims no volume {name}: it must say under which key, and whom that excludes");
        claims.get(name).ok_or_else(|| Trouble::Unusable { because: because() })
    }

    fn read(&self, claims: &BTreeMap<VolumeName, VolumeClaim>) -> Result<Observed, Trouble> {
        if claims.is_empty() {
            return self.describe();
        }
        let mut seen = BTreeMap::new();
        for shared in &self.volumes {
            let claim = Self::claim_of(claims, &shared.name)?;
            let access: Access = self.with_volume(shared, |volume, memory| volume.look(claim, memory))?;
            seen.insert(shared.name.clone(), access);
        }
        Ok(Observed::Storage(seen))
    }

    /// What there is to see without an order: every path leads to its volume and answers.
    fn describe(&self) -> Result<Observed, Trouble> {
        let mut texts = Vec::new();
        for shared in &self.volumes {
            let paths = self.open(shared)?;
            for (name, mut path) in paths {
                let trouble = |fault: scsi::Fault| Trouble::Refused { because: format!("{name}: {fault}") };
                let keys = scsi::read_keys(&mut *path).map_err(trouble)?.len();
                let holder = scsi::read_reservation(&mut *path).map_err(trouble)?;
                let holder =
                    holder.map_or("not reserved".to_owned(), |(key, sort)| format!("reserved by {key}, type {sort}"));
                texts.push(format!("{} over {name}: {keys} keys, {holder}", shared.name));
            }
        }
        Ok(Observed::Note(texts.join("; ")))
    }

    fn off(&self, call: &Call) -> Result<(), Trouble> {
        // All of it must be possible before any of it is begun.
        for shared in &self.volumes {
            Self::claim_of(&call.claims, &shared.name)?;
            drop(self.open(shared)?);
        }
        for shared in &self.volumes {
            let claim = Self::claim_of(&call.claims, &shared.name)?;
            self.with_volume(shared, |volume, memory| volume.claim(claim, memory, &|| call.check()))?;
        }
        Ok(())
    }
}

impl Device for Reservation {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>> {
        Box::pin(async {
            let (inner, claims) = (self.inner.clone(), call.claims.clone());
            let observed = self.desk.run(move || inner.read(&claims)).await?;
            Ok(Sight::new(observed, ReportedIdentity::none()))
        })
    }

    fn off<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async {
            let (inner, call) = (self.inner.clone(), call.clone());
            self.desk.run(move || inner.off(&call)).await
        })
    }

    fn preview(&self, act: Act) -> Vec<String> {
        let paths =
            |volume: &Shared| volume.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let line = |volume: &Shared| match act {
            Act::Read => format!("{}: READ KEYS, READ RESERVATION over {}", volume.name, paths(volume)),
            Act::Off => {
                let sort = self.inner.policy.sort.code();
                format!(
                    "{}: REGISTER over {}; PREEMPT AND ABORT the ledger's owners, type {sort}",
                    volume.name,
                    paths(volume)
                )
            }
        };
        self.inner.volumes.iter().map(line).collect()
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.desk.quiet())
    }
}
