//! `self`, `watchdog`, `operator`: levels whose proof comes from elsewhere.
//!
//! They are descriptors: a level that names one starts nothing and waits. Its evidence is the ledger's: the lease and the
//! armed watchdog (`self`, `watchdog`), a person (`operator`). The agent ends the session with
//! [`ProvenElsewhere`](crate::session::Input::ProvenElsewhere) when it has that.
//! Not here: petting a watchdog (the keeper), counting leases (the ledger), asking a person (the command line).

use super::{BoxFuture, Call, Device, Kind, Sight, rhythm};
use crate::facts::{DeviceFacts, Proves};
use crate::params::Params;
use crate::session::Act;
use crate::target::Place;
use crate::topology::Problem;
use crate::trouble::Trouble;
use std::sync::Arc;

/// The lease: the host stops itself when it can't renew.
pub const SELF: Kind = Kind {
    name: "self",
    about: "the host's own lease: proven by the voters when it has run out (waits)",
    keys: &[],
    build: |params| build(params, "self", LEASE),
};

/// The watchdog, kept by the keeper.
pub const WATCHDOG: Kind = Kind {
    name: "watchdog",
    about: "the host's watchdog, petted under the lease: proven as `self` is (waits)",
    keys: &[],
    build: |params| build(params, "watchdog", WATCHDOG_FIRES),
};

/// A person.
pub const OPERATOR: Kind = Kind {
    name: "operator",
    about: "a person who looked: `antipode fence override` (waits)",
    keys: &[],
    build: |params| build(params, "operator", PERSON),
};

const LEASE: &str = "the host's lease to run out on a majority of voters";
const WATCHDOG_FIRES: &str = "the host's watchdog, which fires when its lease isn't renewed";
const PERSON: &str = "a person to attest it with `antipode fence override`";

struct Waits(DeviceFacts);

fn build(mut params: Params, kind: &'static str, what: &'static str) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let common = params.common();
    let device = common.map(|common| {
        let rhythm = rhythm(1000, 1000, 1000, 1000, 1000);
        let mut facts = common.facts(kind, Proves::Elsewhere(what), rhythm, "");
        facts.place = Place::default();
        Arc::new(Waits(facts)) as Arc<dyn Device>
    });
    params.finish(device)
}

impl Device for Waits {
    fn facts(&self) -> &DeviceFacts {
        &self.0
    }

    fn read<'a>(&'a self, _call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>> {
        Box::pin(async { Err(self.nothing_to_ask()) })
    }

    fn off<'a>(&'a self, _call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async { Err(self.nothing_to_ask()) })
    }

    fn preview(&self, _act: Act) -> Vec<String> {
        vec![format!("(waits for {})", self.waits_for())]
    }
}

impl Waits {
    fn waits_for(&self) -> &'static str {
        match self.0.proves {
            Proves::Elsewhere(what) => what,
            Proves::Machine
            | Proves::Feeds(_)
            | Proves::Hypervisor(_)
            | Proves::Storage(_)
            | Proves::Network
            | Proves::Nothing(_) => "nothing",
        }
    }

    fn nothing_to_ask(&self) -> Trouble {
        Trouble::Unusable { because: format!("there is nothing to ask: it waits for {}", self.waits_for()) }
    }
}

/// Whether `name` needs no `[[device]]` table: the three that have nothing to configure.
pub fn is_built_in(name: &str) -> bool {
    matches!(name, "self" | "watchdog" | "operator")
}
