//! `redfish`: a BMC by Redfish, with our own thin client.
//!
//! One answer tells power state and identity together. `ForceOff` is the only reset ever asked for; whether the service
//! says 200, 202, 204 or 409 decides nothing: the state is polled. Sessions where the service has them, TLS by pin or CA,
//! never without.
//! Not here: task monitors, graceful shutdown, boot settings, events.

mod client;
pub(super) mod http;
pub(super) mod system;
pub mod tls;

pub use client::{Account, Login};
pub use http::{Connect, Stream, TlsConnect, secure};

use super::{BoxFuture, Call, Device, Kind, SETTLE_MIN, Sight, rhythm};
use crate::facts::{DeviceFacts, Proves};
use crate::params::{Key, Params, endpoint_of};
use crate::reading::Observed;
use crate::session::Act;
use crate::topology::Problem;
use crate::trouble::Trouble;
use client::{Ask, Client};
use http::Lost;
use hyper::{Method, StatusCode, Uri};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use system::{FORCE_OFF, ResetAction, System, allowed_by_info, members};
use tls::{Pin, Trust};
use tokio::sync::Mutex;

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "redfish",
    about: "a BMC by Redfish (own client: sessions, TLS by pin or CA)",
    keys: &[
        Key { name: "url", about: "https://host[:port], with the system's path if the BMC has several" },
        Key { name: "user", about: "the user" },
        Key { name: "password", about: "the password, by reference" },
        Key { name: "pins", about: "SHA-256 of the BMC's certificate (list; a second one while it is being replaced)" },
        Key { name: "ca", about: "path of a CA's certificate, instead of pins" },
        Key { name: "login", about: "auto (default), session or basic" },
    ],
    build,
};

const SYSTEMS: &str = "/redfish/v1/Systems";

/// A BMC.
pub struct Redfish {
    facts: DeviceFacts,
    url: String,
    path: String,
    state: Mutex<State>,
}

struct State {
    client: Client,
    /// The system's path, once found.
    system: Option<String>,
    /// The reset action of the newest reading.
    reset: Option<ResetAction>,
}

fn build(mut params: Params) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let common = params.common();
    let rhythm = params.rhythm(rhythm(10_000, 15_000, 250, 1_000, 8_000), SETTLE_MIN);
    let address = address(&mut params);
    let user = params.required::<String>("user");
    let password = params.secret("password");
    if password.is_none() {
        params.problem("password", "is missing".into(), "write password = { file = \"/path\" }".into());
    }
    let login = match params.word("login", &["auto", "session", "basic"]) {
        Some("session") => Login::Session,
        Some("basic") => Login::Basic,
        Some(_) | None => Login::Auto,
    };
    let trust = trust(&mut params);
    let device =
        common.zip(address).zip(user).zip(password).zip(trust).map(|((((common, address), user), password), trust)| {
            let Address { host, port, path } = address;
            let facts = common.facts(KIND.name, Proves::Machine, rhythm, &endpoint_of(&host, Some(port)));
            let account = Account { user, password, login };
            let authority = format!("{host}:{port}");
            let connect = TlsConnect { host: host.trim_matches(['[', ']']).to_owned(), port, trust };
            Arc::new(Redfish::new(facts, (authority, path), account, Box::new(connect))) as Arc<dyn Device>
        });
    params.finish(device)
}

struct Address {
    host: String,
    port: u16,
    path: String,
}

fn address(params: &mut Params) -> Option<Address> {
    let url = params.required::<Uri>("url")?;
    if url.scheme_str() != Some("https") {
        params.problem("url", "isn't https".into(), "a password is never sent without TLS: write https://".into());
        return None;
    }
    let host = url.host()?.to_owned();
    let path = url.path().trim_end_matches('/').to_owned();
    Some(Address { host, port: url.port_u16().unwrap_or(443), path })
}

fn trust(params: &mut Params) -> Option<Trust> {
    let pins: BTreeSet<Pin> = params.names("pins");
    let ca = params.text("ca").map(PathBuf::from);
    match (pins.is_empty(), ca) {
        (false, None) => Some(Trust::Pins(pins)),
        (true, Some(ca)) => Some(Trust::Ca(ca)),
        (true, None) => {
            let remedy =
                "write pins = [\"sha256:...\"] (openssl s_client, openssl x509 -fingerprint -sha256) or ca = \"/path\"";
            params.problem("pins", "are missing, and so is `ca`".into(), remedy.into());
            None
        }
        (false, Some(_)) => {
            params.problem("pins", "stand beside `ca`".into(), "use one of them".into());
            None
        }
    }
}

impl Redfish {
    /// A BMC at `authority` and `path` (empty: its only system), reached by `connect`.
    pub fn new(
        facts: DeviceFacts,
        (authority, path): (String, String),
        account: Account,
        connect: Box<dyn Connect>,
    ) -> Self {
        let url = format!("https://{authority}{path}");
        let client = Client::new(connect, authority, account);
        Self { facts, url, path, state: Mutex::new(State { client, system: None, reset: None }) }
    }
}

impl State {
    async fn read(&mut self, path: &str) -> Result<System, Trouble> {
        let path = self.find(path).await?;
        let answer = self.client.get(&path).await?;
        let garbled = || Trouble::Garbled { because: "its description of the system isn't JSON".to_owned() };
        let mut system = System::understand(answer.body.as_ref().ok_or_else(garbled)?)?;
        let header = answer.headers.get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        system.etag = header.or(system.etag);
        self.reset.clone_from(&system.reset);
        Ok(system)
    }

    /// The system's path: as configured, or the only member of the collection.
    async fn find(&mut self, path: &str) -> Result<String, Trouble> {
        if path.contains("/Systems/") {
            return Ok(path.to_owned());
        }
        if let Some(found) = &self.system {
            return Ok(found.clone());
        }
        let answer = self.client.get(SYSTEMS).await?;
        let mut found = answer.body.as_ref().map(members).unwrap_or_default();
        match (found.pop(), found.as_slice()) {
            (Some(only), []) => {
                self.system = Some(only.clone());
                Ok(only)
            }
            (None, _) => Err(Trouble::Garbled { because: "it lists no systems".to_owned() }),
            (Some(last), others) => {
                let all = [others, &[last]].concat().join(", ");
                Err(Trouble::Unusable {
                    because: format!("it has several systems: complete the url with one of {all}"),
                })
            }
        }
    }

    async fn off(&mut self, path: &str, call: &Call) -> Result<(), Trouble> {
        let reset = match self.reset.clone() {
            Some(reset) => reset,
            None => self.read(path).await?.reset.ok_or_else(no_reset)?,
        };
        self.check_allowed(&reset).await?;
        let mut etag = None;
        // At most: an ended session, a closed connection, a wanted version, and the request itself.
        for _ in 0..4 {
            self.client.prepare().await?;
            let ask = Ask {
                method: Method::POST,
                path: &reset.target,
                body: Some(json!({ "ResetType": FORCE_OFF })),
                etag: etag.as_deref(),
            };
            call.check()?;
            let answer = match self.client.send(&ask).await {
                Ok(answer) => answer,
                Err(Lost::Unsent) => continue, // closed before anything was sent: once more over a new connection
                Err(Lost::Trouble(trouble)) => return Err(trouble),
            };
            match answer.status {
                // It wants the version back that it last told.
                StatusCode::PRECONDITION_FAILED | StatusCode::PRECONDITION_REQUIRED if etag.is_none() => {
                    etag = self.read(path).await?.etag;
                }
                StatusCode::UNAUTHORIZED if self.client.forget_session() => {}
                _ => return self.client.checked(answer).map(|_| ()),
            }
        }
        Err(Trouble::Refused { because: "it ends each session or closes each connection at once".to_owned() })
    }

    async fn check_allowed(&mut self, reset: &ResetAction) -> Result<(), Trouble> {
        let allowed = match (&reset.allowed, &reset.info) {
            (Some(allowed), _) => Some(allowed.clone()),
            (None, Some(info)) => self.client.get(info).await?.body.as_ref().and_then(allowed_by_info),
            (None, None) => None,
        };
        match allowed {
            Some(allowed) if !allowed.iter().any(|one| one == FORCE_OFF) => {
                let because = format!("it can't be forced off; it offers {}", allowed.join(", "));
                Err(Trouble::Unusable { because })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn no_reset() -> Trouble {
    Trouble::Unusable { because: "its system offers no reset (is the user allowed to?)".to_owned() }
}

impl Device for Redfish {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read<'a>(&'a self, _call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>> {
        Box::pin(async {
            let system = self.state.lock().await.read(&self.path).await?;
            Ok(Sight::new(Observed::Power(system.power), system.identity))
        })
    }

    fn off<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async { self.state.lock().await.off(&self.path, call).await })
    }

    fn preview(&self, act: Act) -> Vec<String> {
        match act {
            Act::Read => vec![format!("GET {}", self.url)],
            Act::Off => {
                vec![format!("POST {}/Actions/ComputerSystem.Reset {{\"ResetType\":\"{FORCE_OFF}\"}}", self.url)]
            }
        }
    }
}
