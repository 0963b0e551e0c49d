//! A hostile BMC: a Redfish service of one system that misbehaves as told, over any byte stream, with the truth beside it.

use fencing::device::BoxFuture;
use fencing::device::redfish::{Connect, Stream};
use fencing::trouble::Trouble;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, sleep};

pub const PASSWORD: &str = "hunter2";
pub const MACHINE: &str = "11111111-2222-3333-4444-0000000000aa";
const OTHER_MACHINE: &str = "99999999-2222-3333-4444-0000000000bb";
pub const SYSTEM: &str = "/redfish/v1/Systems/1";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

/// What an off does to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Off, this much later.
    Off(Duration),
    /// Nothing.
    None,
    /// Off at once, and on again this much later.
    ComesBack(Duration),
    /// Off and on in turn, once between any two readings that arrive.
    Flips,
}

/// What an off is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffAnswer {
    /// This status, whatever happens.
    Status(u16),
    /// 204, but 409 when the machine is off already.
    ConflictWhenOff,
}

/// How the service fails to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It says nothing.
    Hang,
    /// It closes in the middle of the answer.
    CloseMidAnswer,
    /// It sends one byte a second.
    SlowLoris,
    /// It sends bytes that aren't HTTP.
    NoHttp,
    /// Its body isn't JSON.
    NoJson,
    /// Its body is JSON without any sense.
    NoSense,
    /// It never stops sending.
    Endless,
    /// It answers with this status.
    Status(u16),
    /// It refuses the connection.
    RefuseConnection,
}

/// How the service misbehaves.
#[derive(Clone, Debug)]
pub struct Manners {
    /// What an off does.
    pub effect: Effect,
    /// What it is answered.
    pub off_answer: OffAnswer,
    /// Requests that fail, by their number.
    pub failures: Vec<(u32, Failure)>,
    /// From this request on, every one fails so.
    pub falls: Option<(u32, Failure)>,
    /// From this request on it speaks for another machine; the flag says for how many.
    pub other_machine: Option<(u32, u32)>,
    /// It tells no identity.
    pub nameless: bool,
    /// It refuses the login from this one on.
    pub locks_after: Option<u32>,
    /// It has sessions (else only Basic).
    pub sessions: bool,
    /// Tokens are good for this many requests.
    pub token_lasts: u32,
    /// From this connection on its certificate is another.
    pub other_certificate: Option<u32>,
    /// It wants the version back.
    pub wants_etag: bool,
    /// It tells a state between on and off after an off.
    pub between: bool,
    /// The machine is off from the beginning.
    pub starts_off: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            effect: Effect::Off(Duration::from_millis(300)),
            off_answer: OffAnswer::Status(204),
            failures: Vec::new(),
            falls: None,
            other_machine: None,
            nameless: false,
            locks_after: None,
            sessions: true,
            token_lasts: u32::MAX,
            other_certificate: None,
            wants_etag: false,
            between: false,
            starts_off: false,
        }
    }
}

/// One answer about the power state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub at: Instant,
    pub said_off: bool,
    pub right_machine: bool,
    pub was_on: bool,
}

#[derive(Debug)]
struct State {
    manners: Manners,
    /// Since when the machine is on or off, and what is in store.
    history: Vec<(Instant, bool)>,
    requests: u32,
    connections: u32,
    logins: u32,
    token_uses: u32,
    etag: u32,
    told: bool,
    refused: bool,
    /// The answer that is being made won't arrive.
    lost: bool,
    log: Log,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub served: Vec<Served>,
    pub offs: u32,
    pub offs_at_other_machine: u32,
    pub refused_logins: u32,
    pub reset_types: Vec<String>,
}

/// The double.
#[derive(Clone, Debug)]
pub struct Bmc(Arc<Mutex<State>>);

impl Bmc {
    pub fn new(manners: Manners) -> Self {
        let history = vec![(Instant::now(), !manners.starts_off)];
        Self(Arc::new(Mutex::new(State {
            manners,
            history,
            requests: 0,
            connections: 0,
            logins: 0,
            token_uses: 0,
            etag: 1,
            told: false,
            refused: false,
            lost: false,
            log: Log::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn log(&self) -> Log {
        self.state().log.clone()
    }

    pub fn is_on(&self) -> bool {
        self.state().is_on()
    }

    /// Switches the machine past the service.
    pub fn set_on(&self, on: bool) {
        self.state().set(Duration::ZERO, on);
    }

    /// Changes its manners.
    pub fn change(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.state().manners);
    }

    /// How often anybody tried to log in.
    pub fn logins(&self) -> u32 {
        self.state().logins
    }

    /// Serves one connection until it ends.
    pub async fn serve(self, mut stream: impl Stream) {
        loop {
            let Some((line, headers, body)) = read_request(&mut stream).await else { return };
            let (failure, answer) = self.state().handle(&line, &headers, &body);
            if failure.is_none() && std::mem::take(&mut self.state().refused) {
                self.state().log.refused_logins += 1; // only a refusal that arrives can be heeded
            }
            match failure {
                None | Some(Failure::Status(_) | Failure::NoJson | Failure::NoSense | Failure::RefuseConnection) => {
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
                Some(Failure::Hang) => {
                    sleep(Duration::from_secs(3600)).await;
                    return;
                }
                Some(Failure::CloseMidAnswer) => {
                    let _ = stream.write_all(&answer[..answer.len() / 2]).await;
                    return;
                }
                Some(Failure::SlowLoris) => {
                    for byte in answer {
                        if stream.write_all(&[byte]).await.is_err() {
                            return;
                        }
                        sleep(Duration::from_secs(1)).await;
                    }
                }
                Some(Failure::NoHttp) => {
                    let _ = stream.write_all(b"\x16\x03\x01 SSH-2.0-dropbear\r\n\0\0\0garbage\r\n\r\n").await;
                    return;
                }
                Some(Failure::Endless) => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
                    while stream.write_all(&chunk).await.is_ok() {}
                    return;
                }
            }
        }
    }
}

impl State {
    fn is_on(&self) -> bool {
        let now = Instant::now();
        self.history.iter().rev().find(|(at, _)| *at <= now).is_none_or(|(_, on)| *on)
    }

    fn set(&mut self, after: Duration, on: bool) {
        self.history.push((Instant::now() + after, on));
    }

    fn at_other_machine(&self) -> bool {
        let number = self.requests;
        self.manners.other_machine.is_some_and(|(from, many)| number >= from && number - from < many)
    }

    fn handle(&mut self, line: &str, headers: &str, body: &Value) -> (Option<Failure>, Vec<u8>) {
        self.requests += 1;
        self.refused = false; // a refusal that was lost is not the next answer's
        let number = self.requests;
        let failure = self.manners.failures.iter().find(|(at, _)| *at == number).map(|(_, failure)| *failure);
        let falls = self.manners.falls.filter(|(from, _)| number >= *from).map(|(_, failure)| failure);
        let failure = falls.or(failure);
        // A connection that stands isn't refused: that answer arrives.
        self.lost = failure.is_some_and(|failure| failure != Failure::RefuseConnection);
        match failure {
            // What can't be answered isn't done either: these fail before they are understood.
            Some(Failure::Status(status)) => (failure, answer(status, &json!({ "error": { "message": "busy" } }), "")),
            Some(Failure::NoJson) => {
                (failure, b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n<html>Off</html>".to_vec())
            }
            Some(Failure::NoSense) => (failure, answer(200, &json!(["Off", { "PowerState": 0 }]), "")),
            // The others may have been carried out before the answer was lost.
            _ => (failure, self.respond(line, headers, body)),
        }
    }

    fn respond(&mut self, line: &str, headers: &str, body: &Value) -> Vec<u8> {
        let refused = answer(401, &json!({ "error": { "message": format!("bad login {PASSWORD}") } }), "");
        if line.starts_with("GET /redfish/v1/ ") {
            return answer(200, &self.root(), "");
        }
        if line.starts_with("POST /redfish/v1/SessionService/Sessions ") {
            if !self.manners.sessions {
                self.refused = true;
                return refused; // as services do that want a login for whatever they don't have
            }
            return if self.login(body["Password"] == PASSWORD) {
                self.token_uses = 0;
                answer(201, &json!({}), "X-Auth-Token: token-1\r\n")
            } else {
                refused
            };
        }
        if headers.contains("x-auth-token: token-1") {
            self.token_uses += 1;
            if self.token_uses > self.manners.token_lasts {
                return refused;
            }
        } else if !self.login(headers.contains("authorization: Basic YWRtaW46aHVudGVyMg==")) {
            return refused;
        }
        if line.starts_with(&format!("POST {RESET} ")) {
            return self.reset(headers, body);
        }
        if line.starts_with(&format!("GET {SYSTEM} ")) {
            return self.describe();
        }
        answer(404, &json!({}), "")
    }

    fn root(&self) -> Value {
        let mut root = json!({ "RedfishVersion": "1.5.0", "Systems": { "@odata.id": "/redfish/v1/Systems" } });
        if self.manners.sessions {
            root["Links"] = json!({ "Sessions": { "@odata.id": "/redfish/v1/SessionService/Sessions" } });
        }
        root
    }

    fn login(&mut self, right: bool) -> bool {
        self.logins += 1;
        let locked = self.manners.locks_after.is_some_and(|after| self.logins > after);
        self.refused = locked || !right;
        right && !locked
    }

    fn reset(&mut self, headers: &str, body: &Value) -> Vec<u8> {
        if self.manners.wants_etag && !headers.contains(&format!("if-match: \"v{}\"", self.etag)) {
            self.etag += 1;
            return answer(428, &json!({ "error": { "message": "If-Match is missing" } }), "");
        }
        self.log.offs += 1;
        self.log.reset_types.push(body["ResetType"].as_str().unwrap_or_default().to_owned());
        if self.at_other_machine() {
            self.log.offs_at_other_machine += 1;
            return answer(204, &json!(null), "");
        }
        let was_on = self.is_on();
        self.told = true;
        match self.manners.effect {
            Effect::Off(after) => self.set(after, false),
            Effect::None => {}
            Effect::ComesBack(after) => {
                self.set(Duration::ZERO, false);
                self.set(after, true);
            }
            Effect::Flips => {}
        }
        match self.manners.off_answer {
            OffAnswer::ConflictWhenOff if !was_on => answer(409, &json!({ "error": { "message": "already off" } }), ""),
            OffAnswer::ConflictWhenOff => answer(204, &json!(null), ""),
            OffAnswer::Status(status) => answer(status, &json!({ "error": { "message": "as told" } }), ""),
        }
    }

    fn describe(&mut self) -> Vec<u8> {
        let other = self.at_other_machine();
        if self.told && !self.lost && self.manners.effect == Effect::Flips {
            let on = self.is_on();
            self.set(Duration::ZERO, !on);
        }
        // The other machine is off, and says so truly.
        let was_on = self.is_on();
        let shown_on = was_on && !other;
        let state = match (shown_on, self.manners.between && self.told) {
            (true, true) => "PoweringOff",
            (true, false) => "On",
            (false, _) => "Off",
        };
        let served = Served {
            at: Instant::now(),
            said_off: state == "Off",
            right_machine: !other && !self.manners.nameless,
            was_on,
        };
        // What was lost on the way told nobody anything.
        if !self.lost {
            self.log.served.push(served);
        }
        let uuid = if other { OTHER_MACHINE } else { MACHINE };
        let mut body = json!({
            "PowerState": state,
            "UUID": uuid,
            "Actions": { "#ComputerSystem.Reset": {
                "target": RESET, "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown", "ForceRestart"] } },
        });
        if self.manners.nameless {
            body["UUID"] = json!("00000000-0000-0000-0000-000000000000");
        }
        answer(200, &body, &format!("ETag: \"v{}\"\r\n", self.etag))
    }
}

fn answer(status: u16, body: &Value, more: &str) -> Vec<u8> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let body = if status == 204 { String::new() } else { body };
    format!("HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\n{length}{more}\r\n{body}").into_bytes()
}

async fn read_request(stream: &mut impl Stream) -> Option<(String, String, Value)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|text| text.trim().parse().ok());
    while bytes.len() < end + length.unwrap_or(0) {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
    }
    let (line, headers) = head.split_once("\r\n")?;
    let body = serde_json::from_slice(&bytes[end..]).unwrap_or(Value::Null);
    Some((line.to_owned(), headers.to_owned(), body))
}

/// Connects to the double within this process, without a network; virtual time works.
#[derive(Clone, Debug)]
pub struct Within(pub Bmc);

impl Within {
    fn stream(&self) -> Result<DuplexStream, Trouble> {
        let (number, manners) = {
            let mut state = self.0.state();
            state.connections += 1;
            (state.connections, state.manners.clone())
        };
        if manners.other_certificate.is_some_and(|from| number >= from) {
            return Err(Trouble::Untrusted { because: "pinned a, shown b".into() });
        }
        let requests = self.0.state().requests;
        let fails = |(at, failure): &(u32, Failure)| *failure == Failure::RefuseConnection && requests + 1 >= *at;
        if manners.falls.as_ref().is_some_and(fails) {
            return Err(Trouble::Unreachable { because: "connection refused".into() });
        }
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(self.0.clone().serve(theirs));
        Ok(ours)
    }
}

impl Connect for Within {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Trouble>> {
        Box::pin(async { self.stream().map(|stream| Box::new(stream) as Box<dyn Stream>) })
    }
}
