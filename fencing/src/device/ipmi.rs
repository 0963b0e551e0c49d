//! `ipmi`: a BMC by IPMI over LAN, through `ipmitool`.
//!
//! One login a call: all of a call's requests go through `ipmitool exec` on standard input. The password is in the
//! environment of that one child (`-E`). The machine is identified by its system GUID (raw, because the byte order
//! differs from vendor to vendor) or by the serial numbers in its FRU. Only the sentence "Chassis Power is off" is off.
//! Not here: RMCP+ itself, sensors, `power cycle`, `power soft`.

use super::{BoxFuture, Call, Device, Kind, SETTLE_MIN, Sight, rhythm};
use crate::facts::{DeviceFacts, Proves};
use crate::params::{Key, Params, endpoint_of};
use crate::process::{Finished, Program};
use crate::reading::{Observed, Power};
use crate::secret::{Mask, Secret, SecretRef};
use crate::session::Act;
use crate::target::{MachineUuid, ReportedIdentity};
use crate::topology::Problem;
use crate::trouble::Trouble;
use std::path::PathBuf;
use std::sync::Arc;

/// The kind.
pub(super) const KIND: Kind = Kind {
    name: "ipmi",
    about: "a BMC by IPMI 2.0 over LAN (ipmitool)",
    keys: &[
        Key { name: "host", about: "the BMC's address" },
        Key { name: "port", about: "its UDP port (default 623)" },
        Key { name: "user", about: "the user" },
        Key { name: "password", about: "the password, by reference" },
        Key { name: "kg_key", about: "the Kg key, by reference, if the BMC has one" },
        Key { name: "cipher", about: "cipher suite (default 17; 3 for older BMCs; 0 is refused)" },
        Key { name: "privilege", about: "ADMINISTRATOR (default) or OPERATOR" },
        Key { name: "identify_by", about: "guid (default), fru or both" },
        Key { name: "answer_within", about: "seconds for one request (default 1)" },
        Key { name: "retries", about: "requests repeated so often (default 2)" },
        Key { name: "program", about: "path of ipmitool" },
    ],
    build,
};

/// Get System GUID (IPMI 2.0, 20.8): network function App, command 37h.
const GET_GUID: &str = "raw 0x06 0x37";

struct Ipmi {
    facts: DeviceFacts,
    program: PathBuf,
    args: Vec<String>,
    password: SecretRef,
    kg_key: Option<SecretRef>,
    questions: &'static [&'static str],
}

fn build(mut params: Params) -> Result<Arc<dyn Device>, Vec<Problem>> {
    let common = params.common();
    let rhythm = params.rhythm(rhythm(10_000, 10_000, 250, 1_000, 5_000), SETTLE_MIN);
    let host = params.required::<String>("host");
    let password = params.secret("password");
    let kg_key = params.secret("kg_key");
    let port = params.number("port", 1..=65535).and_then(|port| u16::try_from(port).ok()).unwrap_or(623);
    let args = host.as_ref().map(|host| arguments(&mut params, host, port, kg_key.is_some()));
    let questions: &[&str] = match params.word("identify_by", &["guid", "fru", "both"]) {
        Some("fru") => &["chassis power status", "fru print 0"],
        Some("both") => &["chassis power status", GET_GUID, "fru print 0"],
        Some(_) | None => &["chassis power status", GET_GUID],
    };
    let program = params.program("program", "ipmitool");
    if password.is_none() {
        params.problem("password", "is missing".into(), "write password = { file = \"/path\" }".into());
    }
    let device = common.zip(host).zip(args).zip(password).map(|(((common, host), args), password)| {
        let facts = common.facts(KIND.name, Proves::Machine, rhythm, &endpoint_of(&host, Some(port)));
        Arc::new(Ipmi { facts, program, args, password, kg_key, questions }) as Arc<dyn Device>
    });
    params.finish(device)
}

fn arguments(params: &mut Params, host: &str, port: u16, has_kg_key: bool) -> Vec<String> {
    if host.starts_with('-') {
        params.problem("host", format!("{host:?} isn't an address"), "correct it".into());
    }
    let cipher = params.number("cipher", 1..=17).unwrap_or(17);
    let privilege = params.word("privilege", &["ADMINISTRATOR", "OPERATOR"]).unwrap_or("ADMINISTRATOR");
    let seconds = params.number("answer_within", 1..=30).unwrap_or(1);
    let retries = params.number("retries", 1..=10).unwrap_or(2);
    let mut args: Vec<String> = ["-v", "-I", "lanplus", "-H", host, "-E", "-L", privilege].map(str::to_owned).into();
    for (option, value) in [("-p", i64::from(port)), ("-C", cipher), ("-N", seconds), ("-R", retries)] {
        args.extend([option.to_owned(), value.to_string()]);
    }
    if let Some(user) = params.text("user") {
        args.extend(["-U".to_owned(), user]);
    }
    if has_kg_key {
        args.push("-K".to_owned());
    }
    args
}

impl Ipmi {
    fn program(&self, requests: &[&str]) -> Program {
        let input = requests.join("\n") + "\n";
        Program::new(&self.program).args(self.args.clone()).args(["exec", "/dev/stdin"]).input(Secret::new(input))
    }

    async fn ask(&self, act: Act, requests: &[&str], call: &Call) -> Result<(Finished, Mask), Trouble> {
        let password = self.password.read()?;
        let mut mask = Mask::of([password.clone()]);
        let mut program = self.program(requests).env("IPMI_PASSWORD", password);
        if let Some(reference) = &self.kg_key {
            let key = reference.read()?;
            mask.add(key.clone());
            program = program.env("IPMI_KGKEY", key);
        }
        if act == Act::Off {
            call.check()?;
        }
        Ok((program.run(&call.leash).await?, mask))
    }
}

impl Device for Ipmi {
    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn read<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Sight, Trouble>> {
        Box::pin(async {
            let (finished, mask) = self.ask(Act::Read, self.questions, call).await?;
            let power = power(&finished.stdout).ok_or_else(|| trouble(&finished, &mask))?;
            Ok(Sight::new(Observed::Power(power), identity(&finished.stdout)))
        })
    }

    fn off<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async {
            let (finished, mask) = self.ask(Act::Off, &["chassis power off"], call).await?;
            let taken = finished.code == Some(0) && finished.stdout.contains("Chassis Power Control: Down/Off");
            if taken { Ok(()) } else { Err(trouble(&finished, &mask)) }
        })
    }

    fn preview(&self, act: Act) -> Vec<String> {
        let requests = if act == Act::Off { &["chassis power off"] } else { self.questions };
        let program = self.program(requests).env("IPMI_PASSWORD", Secret::new("masked by `shown`"));
        vec![format!("{} <<< {}", program.shown(), requests.join("; "))]
    }
}

/// The power state, if exactly one line tells it.
pub(super) fn power(stdout: &str) -> Option<Power> {
    let mut states = stdout.lines().filter_map(|line| line.trim().strip_prefix("Chassis Power is "));
    match (states.next()?.trim(), states.next()) {
        ("on", None) => Some(Power::On),
        ("off", None) => Some(Power::Off),
        _ => None,
    }
}

pub(super) fn identity(stdout: &str) -> ReportedIdentity {
    let hex = |line: &str| -> Option<Vec<u8>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let byte = |word: &&str| (word.len() == 2).then(|| u8::from_str_radix(word, 16).ok()).flatten();
        words.iter().map(byte).collect()
    };
    // The answer to a raw request is lines of up to 16 bytes and nothing else.
    let bytes: Vec<u8> = stdout.lines().filter(|line| !line.trim().is_empty()).filter_map(hex).flatten().collect();
    let uuid = <[u8; 16]>::try_from(bytes).ok().map(MachineUuid::from_bytes);
    let serial = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let is_serial = matches!(key.trim(), "Product Serial" | "Chassis Serial" | "Board Serial");
        is_serial.then(|| value.trim().to_owned())
    };
    ReportedIdentity::of(uuid, stdout.lines().filter_map(serial))
}

/// What ipmitool's words mean. With `-v` it tells a refused login from a BMC that doesn't answer.
pub(super) fn trouble(finished: &Finished, mask: &Mask) -> Trouble {
    const LOGIN: [&str; 4] =
        ["RAKP 2 HMAC is invalid", "unauthorized name", "RAKP 4 message indicates an error", "Invalid user name"];
    const SILENT: [&str; 4] = [
        "Error issuing Get Channel Authentication Capabilities",
        "Get Auth Capabilities error",
        "Address lookup for",
        "Could not open socket",
    ];
    const CIPHER: [&str; 3] =
        ["invalid authentication algorithm", "invalid integrity algorithm", "no matching cipher suite"];
    let stderr = &finished.stderr;
    let telling = |words: &[&str]| {
        stderr.lines().find(|line| words.iter().any(|word| line.contains(word))).map(|line| mask.hide(line.trim()))
    };
    if let Some(because) = telling(&LOGIN) {
        Trouble::LoginRefused { because }
    } else if let Some(because) = telling(&CIPHER) {
        Trouble::Unusable { because: format!("{because} (set `cipher`)") }
    } else if let Some(because) = telling(&SILENT) {
        Trouble::Unreachable { because }
    } else if finished.code == Some(0) {
        Trouble::Garbled { because: mask.hide(&format!("no power state in: {}", finished.stdout)) }
    } else {
        Trouble::Refused { because: mask.hide(&format!("{}: {}", finished.ending(), finished.last_words())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(code: i32, stdout: &str, stderr: &str) -> Finished {
        Finished { code: Some(code), signal: None, stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn only_the_one_sentence_is_off() {
        assert_eq!(power("Chassis Power is off\n"), Some(Power::Off));
        assert_eq!(power("noise\nChassis Power is on\n"), Some(Power::On));
        for text in [
            "",
            "Chassis Power Control: Down/Off\n",
            "Chassis Power is off\nChassis Power is on\n",
            "Chassis Power is offline",
        ] {
            assert_eq!(power(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_guid_is_read_from_raw_bytes_and_serials_from_the_fru() {
        let text =
            "Chassis Power is on\n a1 23 45 67 89 ab cd ef a1 23 45 67 89 ab cd ef\n Product Serial        : AB12\n";
        let identity = identity(text);
        assert_eq!(identity.uuid, MachineUuid::parse("a1234567-89ab-cdef-a123-456789abcdef").ok());
        assert!(identity.serials.contains("AB12"));
        assert_eq!(super::identity("Chassis Power is on\n a1 23\n").uuid, None);
    }

    #[test]
    fn a_refused_login_is_told_from_silence() {
        let mask = Mask::default();
        let login = finished(1, "", "> RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session\n");
        assert!(matches!(trouble(&login, &mask), Trouble::LoginRefused { .. }));
        let silent =
            finished(1, "", "Get Auth Capabilities error\nError: Unable to establish IPMI v2 / RMCP+ session\n");
        assert!(trouble(&silent, &mask).is_silence());
        let fault = finished(1, "", "Get Chassis Power Status failed: Unspecified error\n");
        assert!(matches!(trouble(&fault, &mask), Trouble::Refused { .. }));
    }
}
