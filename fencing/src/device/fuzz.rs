//! What devices answer, as a fuzzer makes it up.

use super::fence_agent::{is_login_refusal, metadata::Metadata};
use super::redfish::http::{Connect, Connection};
use super::redfish::system::{System, allowed_by_info, error_text, members};
use super::reservation::scsi::{self, Data, Ending, Fault, Path};
use super::reservation::sgio;
use super::{BoxFuture, command, ipmi, libvirt, redfish, sbd};
use crate::facts::Proves;
use crate::process::Finished;
use crate::reading::{Observed, Power};
use crate::secret::{Mask, Secret};
use crate::target::MachineUuid;
use crate::trouble::Trouble;
use hyper::body::Bytes;
use std::cell::RefCell;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};

const UUID: &str = "a1234567-89ab-cdef-a123-456789abcdef";

/// What programs print: the first byte says which program and how it ended, a zero byte divides the two streams.
pub fn answers(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    let text = String::from_utf8_lossy(bytes);
    let (stdout, stderr) = text.split_once('\0').unwrap_or((&text, ""));
    let code = [Some(0), Some(1), Some(2), None][usize::from(which >> 6)];
    let finished = Finished { code, signal: None, stdout: stdout.to_owned(), stderr: stderr.to_owned() };
    let mask = Mask::of([Secret::new("hunter2")]);
    let _ = (mask.hide(finished.last_words()), is_login_refusal(&finished));
    match which & 0x07 {
        0 => ipmitool(&finished, &mask),
        1 => virsh(&finished),
        2 => adapter(&finished, &mask),
        3 => agent(stdout),
        _ => description(stdout.as_bytes()),
    }
}

fn ipmitool(finished: &Finished, mask: &Mask) -> bool {
    let trouble = ipmi::trouble(finished, mask).to_string();
    assert!(!trouble.contains("hunter2"), "{trouble}");
    let power = ipmi::power(&finished.stdout);
    let plain = finished.stdout.lines().any(|line| line.split_whitespace().eq(["Chassis", "Power", "is", "off"]));
    assert!(power != Some(Power::Off) || plain, "{:?}", finished.stdout);
    let _ = ipmi::identity(&finished.stdout);
    power.is_some()
}

fn virsh(finished: &Finished) -> bool {
    let expected = MachineUuid::parse(UUID).ok();
    let anywhere = libvirt::sight(finished, None);
    let there = libvirt::sight(finished, expected);
    assert!(anywhere.is_ok() || there.is_err(), "a check more never helps");
    there.is_ok()
}

fn adapter(finished: &Finished, mask: &Mask) -> bool {
    let mut is_accepted = false;
    for proves in [Proves::Machine, Proves::Network, Proves::Nothing("a test")] {
        let Ok(reply) = command::understand(finished, mask) else { return false };
        is_accepted |= command::sight(&proves, reply).is_ok();
    }
    is_accepted
}

fn agent(xml: &str) -> bool {
    let Ok(metadata) = Metadata::parse(xml) else { return false };
    let _ = metadata.complaints([("ip", "10.0.0.9"), ("method", "cycle")].into_iter());
    let _ = (metadata.can("off"), metadata.is_fabric());
    true
}

/// A Redfish service's JSON.
fn description(bytes: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice(bytes) else { return false };
    let _ = (error_text(Some(&body)), allowed_by_info(&body), members(&body));
    let Ok(system) = System::understand(&body) else { return false };
    let said_off = body.get("PowerState").and_then(serde_json::Value::as_str) == Some("Off");
    assert_eq!(Observed::Power(system.power).is_harmless(), said_off);
    true
}

pub fn answer_seeds() -> Vec<Vec<u8>> {
    let with = |which: u8, text: &str| [&[which], text.as_bytes()].concat();
    let ipmi =
        "Chassis Power is off\n a1 23 45 67 89 ab cd ef a1 23 45 67 89 ab cd ef\n Product Serial        : AB12\n";
    let capabilities = format!("<capabilities>\n<host><uuid>{UUID}</uuid></host></capabilities>");
    let virsh = format!(
        "Id:             -\nName: vm\nUUID:           {UUID}\nState:          shut off\nPersistent:     yes\n{capabilities}\n"
    );
    let reply =
        format!(r#"{{"api_version":1,"power":"off","identity":{{"uuid":"{UUID}","serial":"AB12"}},"lab":true}}"#);
    let metadata = r#"<?xml version="1.0" ?><resource-agent name="fence_sample" shortdesc="Sample"><parameters>
 <parameter name="ip" required="1" obsoletes="ipaddr"><content type="string"/><shortdesc lang="en">Address</shortdesc></parameter>
 <parameter name="method"><content type="select" default="onoff"><option value="onoff"/><option value="cycle"/></content></parameter>
</parameters><actions><action name="on" automatic="0"/><action name="off"/></actions></resource-agent>"#;
    let system = r##"{"PowerState":"Off","UUID":"a1234567-89ab-cdef-a123-456789abcdef","SerialNumber":"AB12","@odata.etag":"W/1",
"Actions":{"#ComputerSystem.Reset":{"target":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","ResetType@Redfish.AllowableValues":["On","ForceOff"],"@Redfish.ActionInfo":"/x"}},
"Members":[{"@odata.id":"/redfish/v1/Systems/1"}],"Parameters":[{"Name":"ResetType","AllowableValues":["ForceOff"]}],
"error":{"message":"no","@Message.ExtendedInfo":[{"Message":"not now"}]}}"##;
    let mut seeds = vec![with(0, ipmi), with(1, &virsh), with(2, &reply), with(3, metadata), with(4, system)];
    seeds.push(with(2, r#"{"api_version":1,"isolated":true}"#));
    seeds.push(with(0, "Chassis Power is on\n\0> RAKP 2 HMAC is invalid\nhunter2"));
    seeds
}

/// A service that says `answer` once it has read a request.
struct Says(RefCell<Option<Vec<u8>>>);

// SAFETY of sharing isn't at stake: one thread runs everything; the trait just asks for it.
struct Once(std::sync::Mutex<Says>);

impl Connect for Once {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn redfish::Stream>, Trouble>> {
        let answer = self.0.lock().ok().and_then(|says| says.0.borrow_mut().take()).unwrap_or_default();
        Box::pin(async move {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            tokio::spawn(async move {
                let mut asked = [0; 4_096];
                let _ = far.read(&mut asked).await;
                let _ = far.write_all(&answer).await;
            });
            Ok(Box::new(near) as Box<dyn redfish::Stream>)
        })
    }
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// A whole answer over HTTP/1.1.
pub fn http(bytes: &[u8]) -> bool {
    let says = Once(std::sync::Mutex::new(Says(RefCell::new(Some(bytes.to_vec())))));
    let asking = async {
        let mut connection = Connection::open(&says).await.ok()?;
        let request =
            hyper::Request::get("/redfish/v1/Systems/1").header("host", "bmc").body(Bytes::new().into()).ok()?;
        connection.ask(request).await.ok()
    };
    let asked =
        RUNTIME.with(|runtime| runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), asking).await }));
    let Some(answer) = asked.expect("a service that has closed keeps nobody waiting") else { return false };
    let _ = error_text(answer.body.as_ref());
    answer.body.is_some()
}

pub fn http_seeds() -> Vec<Vec<u8>> {
    let body = r#"{"PowerState":"Off"}"#;
    let plain = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-auth-token: abc\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let late = format!("HTTP/1.1 100 Continue\r\n\r\n{plain}");
    [plain, chunked, late].map(String::into_bytes).into()
}

/// Answers of one logical unit: of each piece, the first byte is the status, the next eighteen its sense data.
struct Tape<'a>(std::slice::Chunks<'a, u8>);

impl Path for Tape<'_> {
    fn execute(&mut self, _cdb: &[u8], data: Data<'_>) -> Result<Ending, String> {
        let Some((&status, rest)) = self.0.next().and_then(<[u8]>::split_first) else { return Err("gone".into()) };
        let sense = sgio::understand(&rest[..rest.len().min(18)]);
        // Whoever is busy is asked again after a pause, which would only take time here.
        let is_busy = matches!(status, 0x08 | 0x28) || sense.is_some_and(|(key, _, _)| key == 0x0b);
        if let Data::In(room) = data {
            let length = room.len().min(rest.len());
            room[..length].copy_from_slice(&rest[..length]);
        }
        Ok(if is_busy { Ending { status: 0, sense: None } } else { Ending { status, sense } })
    }
}

/// What disks answer: the first byte says to which question.
pub fn disks(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    let mut tape = Tape(bytes.chunks(256));
    match which & 0x07 {
        0 => scsi::read_keys(&mut tape).is_ok_and(|keys| keys.len() <= 1_024),
        1 => scsi::read_reservation(&mut tape).is_ok(),
        2 => scsi::can_persist(&mut tape).is_ok(),
        3 => scsi::identity(&mut tape).is_ok(),
        4 => !matches!(
            scsi::order(&mut tape, scsi::Order::Register { old: 1, new: 2, aptpl: true }),
            Err(Fault::Busy(_))
        ),
        5 => {
            let _ = (sbd::message(bytes), sbd::is_of(bytes, "tk-1"));
            sbd::is_of(bytes, "tk-1")
        }
        _ => sbd::geometry(bytes).is_ok_and(|geometry| geometry.sector <= 4_096 && geometry.slots < 256),
    }
}

pub fn disk_seeds() -> Vec<Vec<u8>> {
    let keys = [&[0, 0, 0, 0, 0, 7, 0, 0, 0, 16][..], &[0x12; 16]].concat();
    let reservation = [&[1, 0, 0, 0, 0, 7, 0, 0, 0, 16][..], &[0x12; 8], &[0; 5], &[0x15, 0, 0]].concat();
    let persists = vec![2, 0, 0, 8, 1, 0, 0, 0, 0];
    let mut page = [&[3, 0, 0, 0x83, 0, 12, 1, 3, 0, 8][..], &[0x50; 8]].concat();
    page.resize(257, 0);
    page.extend([0, 0, 0x80, 0, 4, b'A', b'B', b'1', b'2']);
    let refused = [&[4, 2, 0x70, 0, 5][..], &[0; 9], &[0x24, 0, 0, 0]].concat();
    let slot = [&[5, 1][..], b"tk-1\0"].concat();
    let header = [&[6][..], b"SBD_SBD_", &[2, 255, 0, 0, 0, 0, 2, 0]].concat();
    vec![keys, reservation, persists, page, refused, slot, header]
}
