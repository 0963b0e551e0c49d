//! Reads the keys of one `[[device]]` table: every problem at once, unknown keys with a suggestion.
//!
//! A kind takes its keys one by one and calls [`Params::finish`]; what it didn't take is unknown. A value of the wrong
//! sort yields a problem and a harmless stand-in, so that reading goes on and the next problem is found as well.

use crate::facts::{Binding, DeviceFacts, Proves, Rhythm};
use crate::name::{DeviceName, DomainName, SiteName};
use crate::secret::SecretRef;
use crate::target::Place;
use crate::topology::{Problem, nearest};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use toml::{Table, Value};

/// Nothing that a device does takes longer, and sums of spans up to it don't overflow.
const SPAN_MAX: Duration = Duration::from_secs(3_600);

/// A key of a device's table, for its documentation and for suggestions.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it means, with unit and default.
    pub about: &'static str,
}

/// Keys that every kind has.
pub const COMMON_KEYS: [Key; 14] = [
    Key { name: "name", about: "the device's name" },
    Key { name: "kind", about: "its kind" },
    Key { name: "site", about: "the site where it stands" },
    Key { name: "power", about: "power circuits it hangs on (list)" },
    Key { name: "network", about: "network segments through which it is reached (list)" },
    Key { name: "room", about: "the room or rack where it stands" },
    Key { name: "lab", about: "true for a laboratory's stand-in: its evidence is marked (default false)" },
    Key {
        name: "wired",
        about: "who attested, and when, that it switches this host; needed where it can't report that",
    },
    Key { name: "endpoint", about: "devices with the same endpoint are used one at a time (default: its address)" },
    Key { name: "settle", about: "time between the two readings of a proof" },
    Key { name: "poll", about: "pause between two readings while waiting" },
    Key { name: "read_limit", about: "longest time for one reading" },
    Key { name: "off_limit", about: "longest time for one switching off" },
    Key { name: "off_again", about: "switch off again after this long without effect" },
];

/// Keys by which some kinds choose what their reading is about.
pub const PROVES_KEYS: [Key; 3] = [
    Key { name: "proves", about: "machine (default), feeds, network or hypervisor: what its state is about" },
    Key { name: "feeds", about: "the host's feeds that it switches (list)" },
    Key { name: "group", about: "the group whose VM it switches (with hypervisor)" },
];

/// The keys of one device, and the problems found so far.
#[derive(Debug)]
pub struct Params {
    table: Table,
    name: String,
    known: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

/// What every device has.
#[derive(Clone, Debug)]
pub struct Common {
    /// Its name.
    pub name: DeviceName,
    /// Where it stands.
    pub place: Place,
    /// A laboratory's stand-in.
    pub lab: bool,
    /// Who attested the wiring.
    pub wired: Option<String>,
    /// What is used one at a time, if configured.
    pub endpoint: Option<String>,
}

impl Common {
    /// The facts of a device of this kind at `address`.
    pub fn facts(self, kind: &'static str, proves: Proves, rhythm: Rhythm, address: &str) -> DeviceFacts {
        let binding = match (self.wired, &proves) {
            (Some(by), _) => Binding::Wired(by),
            (None, Proves::Storage(_) | Proves::Nothing(_) | Proves::Elsewhere(_)) => Binding::Claim,
            (None, Proves::Machine | Proves::Feeds(_) | Proves::Hypervisor(_) | Proves::Network) => Binding::Reported,
        };
        let endpoint = self.endpoint.unwrap_or_else(|| address.to_owned());
        DeviceFacts { name: self.name, kind, proves, binding, rhythm, endpoint, place: self.place, lab: self.lab }
    }
}

/// What is used one at a time: a host's address, whatever the port. On loopback each port is a thing of its own (a
/// tunnel, a simulator).
pub fn endpoint_of(host: &str, port: Option<u16>) -> String {
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match port {
        Some(port) if loopback => format!("{host}:{port}"),
        _ => host.to_ascii_lowercase(),
    }
}

impl Params {
    /// Begins to read `table`.
    pub fn new(table: Table) -> Self {
        let name = table.get("name").and_then(Value::as_str).unwrap_or("without a name").to_owned();
        let known = COMMON_KEYS.iter().map(|key| key.name).collect();
        Self { table, name, known, problems: Vec::new() }
    }

    /// Takes what every device has.
    pub fn common(&mut self) -> Option<Common> {
        let name = self.required::<DeviceName>("name");
        let place = Place {
            site: self.parsed::<SiteName>("site"),
            power: self.names("power"),
            network: self.names("network"),
            room: self.parsed::<DomainName>("room"),
        };
        let (lab, wired, endpoint) = (self.flag("lab"), self.text("wired"), self.text("endpoint"));
        Some(Common { name: name?, place, lab, wired, endpoint })
    }

    /// Takes limits and rhythm, with this kind's defaults and least settle time.
    pub fn rhythm(&mut self, default: Rhythm, settle_min: Duration) -> Rhythm {
        let rhythm = Rhythm {
            read_limit: self.duration("read_limit").unwrap_or(default.read_limit),
            off_limit: self.duration("off_limit").unwrap_or(default.off_limit),
            poll: self.duration("poll").unwrap_or(default.poll),
            settle: self.duration("settle").unwrap_or(default.settle),
            off_again: self.duration("off_again").unwrap_or(default.off_again),
        };
        if rhythm.settle < settle_min {
            self.problem("settle", format!("{:?} is too short", rhythm.settle), format!("use {settle_min:?} or more"));
        }
        let spans = [("settle", rhythm.settle), ("poll", rhythm.poll), ("off_again", rhythm.off_again)];
        for (key, value) in
            spans.into_iter().chain([("read_limit", rhythm.read_limit), ("off_limit", rhythm.off_limit)])
        {
            if value > SPAN_MAX {
                self.problem(key, format!("{value:?} is too long"), "use 1h or less".to_owned());
            }
        }
        for (key, value) in [("poll", rhythm.poll), ("read_limit", rhythm.read_limit), ("off_limit", rhythm.off_limit)]
        {
            if value < Duration::from_millis(50) {
                self.problem(key, format!("{value:?} is too short"), "use 50ms or more".to_owned());
            }
        }
        rhythm
    }

    /// A text that need not be there.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            other => self.wrong(key, &other, "a text in quotes"),
        }
    }

    /// Something with a text form that need not be there.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &'static str) -> Option<T> {
        let text = self.text(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, error.to_string(), "correct it".to_owned());
                None
            }
        }
    }

    /// Something with a text form that must be there.
    pub fn required<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &'static str) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.insert(key);
            self.problem(key, "is missing".to_owned(), format!("add `{key} = \"...\"`"));
            return None;
        }
        self.parsed(key)
    }

    /// One of a few words.
    pub fn word(&mut self, key: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.text(key)?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            self.problem(key, format!("{text:?} isn't known"), format!("use one of: {}", words.join(", ")));
        }
        found
    }

    /// A yes or no; no if it isn't there.
    pub fn flag(&mut self, key: &'static str) -> bool {
        match self.take(key) {
            None => false,
            Some(Value::Boolean(flag)) => flag,
            Some(other) => self.wrong::<bool>(key, &other, "true or false").unwrap_or(false),
        }
    }

    /// A whole number within bounds.
    pub fn number(&mut self, key: &'static str, bounds: std::ops::RangeInclusive<i64>) -> Option<i64> {
        match self.take(key)? {
            Value::Integer(number) if bounds.contains(&number) => Some(number),
            other => {
                let wanted = format!("a number from {} to {}", bounds.start(), bounds.end());
                self.wrong(key, &other, &wanted)
            }
        }
    }

    /// A span of time: `250ms`, `10s`, `2m`, `1h`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let text = self.text(key)?;
        let parsed = parse_duration(&text);
        if parsed.is_none() {
            self.problem(key, format!("{text:?} isn't a span of time"), "write it as 250ms, 10s, 2m or 1h".to_owned());
        }
        parsed
    }

    /// A secret: `{ file = "..." }`, `{ env = "..." }` or `{ credential = "..." }`.
    pub fn secret(&mut self, key: &'static str) -> Option<SecretRef> {
        let value = self.take(key)?;
        match secret_ref(&value) {
            Ok(reference) => Some(reference),
            Err(what) => {
                // Never shows the value: it may be the secret itself.
                self.problem(key, what.to_owned(), SECRET_FORMS.to_owned());
                None
            }
        }
    }

    /// A list of texts; empty if it isn't there.
    pub fn list(&mut self, key: &'static str) -> Vec<String> {
        let texts = |values: Vec<Value>| -> Option<Vec<String>> {
            values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect()
        };
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => texts(values).unwrap_or_else(|| {
                self.problem(key, "isn't a list of texts".to_owned(), format!("write `{key} = [\"...\"]`"));
                Vec::new()
            }),
            Some(other) => self.wrong::<Vec<String>>(key, &other, "a list of texts").unwrap_or_default(),
        }
    }

    /// A list of names.
    pub fn names<T: FromStr<Err: std::fmt::Display> + Ord>(&mut self, key: &'static str) -> BTreeSet<T> {
        let mut names = BTreeSet::new();
        for text in self.list(key) {
            match text.parse() {
                Ok(name) => {
                    names.insert(name);
                }
                Err(error) => self.problem(key, format!("{error}"), "correct it".to_owned()),
            }
        }
        names
    }

    /// A table within the device's table; empty if it isn't there.
    pub fn table(&mut self, key: &'static str) -> Table {
        match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => self.wrong::<Table>(key, &other, "a table").unwrap_or_default(),
        }
    }

    /// A table of secrets within the device's table.
    pub fn secrets(&mut self, key: &'static str) -> BTreeMap<String, SecretRef> {
        let mut secrets = BTreeMap::new();
        for (name, value) in self.table(key) {
            match secret_ref(&value) {
                Ok(reference) => drop(secrets.insert(name, reference)),
                Err(what) => self.problem(&format!("{key}.{name}"), what.to_owned(), SECRET_FORMS.to_owned()),
            }
        }
        secrets
    }

    /// What the device's reading is about, where a kind lets that be chosen: `proves` and `feeds`.
    pub fn proves(&mut self) -> Option<Proves> {
        let word = self.word("proves", &["machine", "feeds", "network", "hypervisor"]);
        let feeds = self.names("feeds");
        let group = self.parsed("group");
        match (word, feeds.is_empty(), group) {
            (None | Some("feeds"), false, None) => Some(Proves::Feeds(feeds)),
            (None | Some("machine"), true, None) => Some(Proves::Machine),
            (Some("network"), true, None) => Some(Proves::Network),
            (Some("hypervisor"), true, Some(group)) => Some(Proves::Hypervisor(group)),
            (word, _, _) => {
                let what = format!("{} doesn't fit `feeds` and `group`", word.unwrap_or("machine"));
                let remedy = "`feeds` go with \"feeds\", `group` goes with \"hypervisor\", neither with the others";
                self.problem("proves", what, remedy.to_owned());
                None
            }
        }
    }

    /// A list of tables within the device's table.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table> {
        let tables = |values: Vec<Value>| -> Option<Vec<Table>> {
            values.into_iter().map(|value| value.as_table().cloned()).collect()
        };
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => tables(values).unwrap_or_else(|| {
                self.problem(key, "isn't a list of tables".to_owned(), format!("write `[[device.{key}]]`"));
                Vec::new()
            }),
            Some(other) => self.wrong::<Vec<Table>>(key, &other, "a list of tables").unwrap_or_default(),
        }
    }

    /// A program, by path or by name.
    pub fn program(&mut self, key: &'static str, default: &str) -> PathBuf {
        self.text(key).map_or_else(|| PathBuf::from(default), PathBuf::from)
    }

    /// Notes a problem at `key`.
    pub fn problem(&mut self, key: &str, what: String, remedy: String) {
        self.problems.push(Problem::new(format!("device {}: {key}", self.name), what, remedy));
    }

    /// Ends reading: gives `value` if there was no problem, and every problem otherwise.
    ///
    /// # Errors
    /// All problems, among them each key that nobody took.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<Problem>> {
        let unknown: Vec<String> =
            self.table.keys().filter(|key| !self.known.contains(key.as_str())).cloned().collect();
        for key in unknown {
            let near = nearest(&key, self.known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let all = || format!("known keys: {}", self.known.iter().copied().collect::<Vec<_>>().join(", "));
            let remedy = near.unwrap_or_else(all);
            self.problem(&key, "isn't a key of this kind".to_owned(), remedy);
        }
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(self.problems),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.insert(key);
        self.table.get(key).cloned()
    }

    fn wrong<T>(&mut self, key: &str, value: &Value, wanted: &str) -> Option<T> {
        self.problem(key, format!("is {}", value.type_str()), format!("write {wanted}"));
        None
    }
}

const SECRET_FORMS: &str = "write { file = \"/path\" }, { env = \"NAME\" } or { credential = \"name\" }";

fn secret_ref(value: &Value) -> Result<SecretRef, &'static str> {
    const NOT_A_REFERENCE: &str = "isn't a reference to a secret (secrets themselves don't stand in a spec)";
    let table = value.as_table().ok_or(NOT_A_REFERENCE)?;
    let mut entries = table.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else { return Err(NOT_A_REFERENCE) };
    let text = value.as_str().filter(|text| !text.is_empty()).ok_or(NOT_A_REFERENCE)?;
    match key.as_str() {
        "file" => Ok(SecretRef::File(text.into())),
        "env" => Ok(SecretRef::Env(text.to_owned())),
        "credential" if !text.contains('/') => Ok(SecretRef::Credential(text.to_owned())),
        _ => Err(NOT_A_REFERENCE),
    }
}

/// `250ms`, `10s`, `2m`, `1h`, with a whole or decimal number.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        Params::new(text.parse().unwrap())
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut params =
            params("name = 'Bmc 1'\nkind = 'x'\nport = 'many'\npasword = 'secret-one'\nlab = 3\npoll = '5 minutes'");
        let _ = params.common();
        let _ = params.number("port", 1..=65535);
        let _ = params.secret("password");
        let _ = params.duration("poll");
        let text = params.finish(Some(())).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for part in [
            "name: ",
            "port: is string",
            "pasword: isn't a key",
            "did you mean `password`?",
            "lab: is integer",
            "poll: ",
        ] {
            assert!(text.contains(part), "{part:?} isn't in\n{text}");
        }
        assert!(!text.contains("secret-one"), "the message shows what may be a secret:\n{text}");
    }

    #[test]
    fn a_secret_written_out_is_refused_and_not_shown() {
        for value in [
            "'hunter2'",
            "{ file = 'a', env = 'hunter2' }",
            "{ password = 'hunter2' }",
            "{ credential = '../hunter2' }",
        ] {
            let mut params = params(&format!("name = 'a'\npassword = {value}"));
            assert_eq!(params.secret("password"), None, "{value}");
            let problems = params.finish(Some(())).unwrap_err();
            assert!(!problems[0].to_string().contains("hunter2"), "{}", problems[0]);
        }
    }

    #[test]
    fn spans_of_time_have_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for text in ["10", "s", "-1s", "1d", ""] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }
}
