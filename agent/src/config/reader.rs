//! Reads a TOML table key by key and collects every problem with its line.
//!
//! A reader hands out checked values and remembers which keys were asked for; what is left over at
//! [`Reader::finish`] is an unknown key. A missing or wrong value becomes a problem and a harmless default, so that
//! reading goes on and the next problem is found as well.

use super::nearest::nearest;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file as the user named it.
    pub file: String,
    /// Line from 1; 0 if it concerns the whole file.
    pub line: usize,
    /// The key, dotted, as `group.erp.tier`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// A problem that somebody else than the reader found with what `path` leads to in `text`.
    pub fn at(file: &str, text: &str, (path, what, remedy): (&[String], &str, &str)) -> Self {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let found = DeTable::parse(text).ok().and_then(|root| locate(root.get_ref(), &path));
        let line = Sheet::new(file, text).line(found.unwrap_or(0));
        // A message of several lines shows a piece of the value in its own words; the first says what is wrong.
        let what = what.lines().next().unwrap_or_default().to_owned();
        Self { file: file.to_owned(), line, key: path.join("."), what, remedy: remedy.to_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}; {}", self.file, self.line, self.key, self.what, self.remedy)
    }
}

/// Everything wrong with a file, at least one problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Where problems go, with what is needed to turn a byte offset into a line.
pub(super) struct Sheet<'t> {
    file: &'t str,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl<'t> Sheet<'t> {
    fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, problems: RefCell::default(), warnings: RefCell::default() }
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count() + 1
    }

    fn report(&self, at: usize, key: String, what: impl Into<String>, remedy: impl Into<String>) {
        let (file, what, remedy) = (self.file.to_owned(), what.into(), remedy.into());
        self.problems.borrow_mut().push(Problem { file, line: self.line(at), key, what, remedy });
    }

    fn warn(&self, at: usize, key: String, (what, remedy): (String, String)) {
        let file = self.file.to_owned();
        self.warnings.borrow_mut().push(Problem { file, line: self.line(at), key, what, remedy });
    }

    fn into_survey<T>(self, value: T) -> Survey<T> {
        let by_line = |found: RefCell<Vec<Problem>>| {
            let mut found = found.into_inner();
            found.sort_by_key(|problem| problem.line);
            found
        };
        Survey { value, problems: by_line(self.problems), warnings: by_line(self.warnings) }
    }
}

/// What reading a file came to. With problems the value must not be used.
pub(super) struct Survey<T> {
    pub(super) value: T,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// Parses `text` and hands the root table to `read`; no value if it isn't TOML.
pub(super) fn survey<T>(file: &str, text: &str, read: impl FnOnce(&Reader<'_>) -> Option<T>) -> Survey<Option<T>> {
    let sheet = Sheet::new(file, text);
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            sheet.report(at, "syntax".into(), error.message(), "correct the TOML");
            return sheet.into_survey(None);
        }
    };
    let value = {
        let reader = Reader::new(&sheet, String::new(), root.span().start, root.get_ref());
        let value = read(&reader);
        reader.finish();
        value
    };
    sheet.into_survey(value)
}

/// Parses `text` and hands the root table to `read`.
///
/// # Errors
/// All [`Problems`] found, sorted by line.
pub(super) fn read<T>(file: &str, text: &str, read: impl FnOnce(&Reader<'_>) -> Option<T>) -> Result<T, Problems> {
    let survey = survey(file, text, read);
    if survey.problems.is_empty() {
        Ok(survey.value.expect("a file without problems is complete"))
    } else {
        Err(Problems(survey.problems))
    }
}

/// Where `path` leads to from `table`, as far as it is there. In a list of tables a part of the path is a `name`.
fn locate(table: &DeTable<'_>, path: &[&str]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    let here = Some(value.span().start);
    let Some(name) = rest.first() else { return here };
    match value.get_ref() {
        DeValue::Table(inner) => locate(inner, rest).or(here),
        DeValue::Array(items) => {
            let is_named = |item: &&Spanned<DeValue<'_>>| {
                let table = item.get_ref().as_table();
                let of = |key| table.and_then(|table| table.get(key)).and_then(|value| value.get_ref().as_str());
                of("name").or_else(|| of("host")) == Some(name)
            };
            let item = items.iter().find(is_named)?;
            let inner = item.get_ref().as_table().and_then(|inner| locate(inner, &rest[1..]));
            inner.or(Some(item.span().start))
        }
        _ => here,
    }
}

/// A table being read.
pub struct Reader<'t> {
    sheet: &'t Sheet<'t>,
    path: String,
    at: usize,
    table: &'t DeTable<'t>,
    asked: RefCell<BTreeSet<&'static str>>,
    rest: RefCell<bool>,
}

impl<'t> Reader<'t> {
    fn new(sheet: &'t Sheet<'t>, path: String, at: usize, table: &'t DeTable<'t>) -> Self {
        Self { sheet, path, at, table, asked: RefCell::default(), rest: RefCell::new(false) }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    /// Reports a problem with `key` of this table.
    pub fn problem(&self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let at = self.table.get(key).map_or(self.at, |value| value.span().start);
        self.sheet.report(at, self.key(key), what, remedy);
    }

    /// Reports a problem with what `path` leads to from this table.
    pub fn problem_at(&self, path: &[&str], what: impl Into<String>, remedy: impl Into<String>) {
        let at = locate(self.table, path).unwrap_or(self.at);
        self.sheet.report(at, self.key(&path.join(".")), what, remedy);
    }

    /// Something that is allowed, and that its author should know.
    pub fn warn_at(&self, path: &[&str], what: impl Into<String>, remedy: impl Into<String>) {
        let at = locate(self.table, path).unwrap_or(self.at);
        self.sheet.warn(at, self.key(&path.join(".")), (what.into(), remedy.into()));
    }

    fn wrong_type(&self, key: &str, value: &DeValue<'_>, wanted: &str) {
        self.problem(key, format!("is a {}, not {wanted}", value.type_str()), format!("write {wanted}"));
    }

    /// Whether the key is present.
    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// A text, if present.
    pub fn text(&self, key: &'static str) -> Option<String> {
        let value = self.value(key)?.get_ref();
        let text = value.as_str();
        if text.is_none() {
            self.wrong_type(key, value, "a text in quotes");
        }
        text.map(str::to_owned)
    }

    /// A text that parses as `T`, if present.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Option<T> {
        let text = self.text(key)?;
        text.parse().map_err(|error| self.problem(key, format!("{error}"), "correct the value")).ok()
    }

    /// A text that parses as `T` and must be there.
    pub fn required<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Option<T> {
        self.must(key);
        self.parsed(key)
    }

    fn must(&self, key: &'static str) {
        if !self.has(key) {
            self.problem(key, "is missing", format!("add `{key} = …`"));
        }
    }

    /// A path, if present.
    pub fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A path that must be there.
    pub fn required_path(&self, key: &'static str) -> Option<PathBuf> {
        self.must(key);
        self.path(key)
    }

    /// True or false, if present.
    pub fn flag(&self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?.get_ref();
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false");
        }
        flag
    }

    /// A whole number of at least zero, if present.
    pub fn number(&self, key: &'static str) -> Option<u64> {
        let value = self.value(key)?.get_ref();
        let number = value.as_integer().and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        if number.is_none() {
            self.wrong_type(key, value, "a whole number of at least 0");
        }
        number
    }

    /// A span of time as `15s`, `250ms`, `10m`, `2h`, if present.
    pub fn span(&self, key: &'static str) -> Option<Duration> {
        let text = self.text(key)?;
        parse_span(&text)
            .ok_or_else(|| {
                self.problem(key, format!("{text:?} is no span of time"), "write e.g. \"250ms\", \"15s\", \"10m\"")
            })
            .ok()
    }

    /// One of some words, if present.
    pub fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.problem(key, format!("{text:?} is not known"), format!("use one of {}", known.join(", ")));
        }
        found
    }

    /// A list of texts that parse as `T`; empty if absent.
    pub fn list<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value.get_ref(), "a list");
            return Vec::new();
        };
        let mut list = Vec::new();
        for item in array {
            match item.get_ref().as_str().map(str::parse) {
                Some(Ok(parsed)) => list.push(parsed),
                Some(Err(error)) => {
                    self.sheet.report(item.span().start, self.key(key), format!("{error}"), "correct the value");
                }
                None => self.sheet.report(item.span().start, self.key(key), "has an item that is no text", "quote it"),
            }
        }
        list
    }

    /// A list of lists of texts; empty if absent.
    pub fn levels(&self, key: &'static str) -> Vec<Vec<String>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let texts = |item: &Spanned<DeValue<'_>>| -> Option<Vec<String>> {
            item.get_ref().as_array()?.iter().map(|text| text.get_ref().as_str().map(str::to_owned)).collect()
        };
        let levels: Option<Vec<Vec<String>>> =
            value.get_ref().as_array().and_then(|array| array.iter().map(texts).collect());
        if levels.is_none() {
            self.wrong_type(key, value.get_ref(), "a list of lists of device names");
        }
        levels.unwrap_or_default()
    }

    /// A table, if present: reads it with `read` and reports its unknown keys.
    pub fn table<T>(&self, key: &'static str, read: impl FnOnce(&Reader<'_>) -> T) -> Option<T> {
        let value = self.value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value.get_ref(), "a table");
            return None;
        };
        let reader = Reader::new(self.sheet, self.key(key), value.span().start, table);
        let result = read(&reader);
        reader.finish();
        Some(result)
    }

    /// A list of tables: reads each with `read`. The key of one in messages is its `name`, where it has one.
    pub fn tables<T>(&self, key: &'static str, read: impl Fn(&Reader<'_>) -> Option<T>) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value.get_ref(), "a list of tables");
            return Vec::new();
        };
        let mut list = Vec::new();
        for (n, item) in array.iter().enumerate() {
            let Some(table) = item.get_ref().as_table() else {
                self.wrong_type(key, item.get_ref(), "a table");
                continue;
            };
            let name = ["name", "host"].iter().find_map(|name| table.get(*name)?.get_ref().as_str());
            let label = name.map_or_else(|| format!("{key}[{n}]"), |name| format!("{key}.{name}"));
            let reader = Reader::new(self.sheet, self.key(&label), item.span().start, table);
            list.extend(read(&reader));
            reader.finish();
        }
        list
    }

    /// A table whose keys are names: reads each value, which must be a table, with `read`.
    pub fn named_tables<K: FromStr<Err: fmt::Display> + Ord, T>(
        &self,
        key: &'static str,
        read: impl Fn(&Reader<'_>) -> Option<T>,
    ) -> Vec<(K, T)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value.get_ref(), "a table");
            return Vec::new();
        };
        let mut list = Vec::new();
        for (name, item) in table {
            let path = format!("{}.{}", self.key(key), name.get_ref());
            match (name.get_ref().parse::<K>(), item.get_ref().as_table()) {
                (Ok(parsed), Some(inner)) => {
                    let reader = Reader::new(self.sheet, path, item.span().start, inner);
                    list.extend(read(&reader).map(|value| (parsed, value)));
                    reader.finish();
                }
                (Err(error), _) => self.sheet.report(name.span().start, path, format!("{error}"), "correct the name"),
                (_, None) => self.sheet.report(item.span().start, path, "is not a table", "write a table"),
            }
        }
        list
    }

    /// The keys that nobody asked for, as they stand, for a kind that checks its own.
    pub fn rest(&self) -> toml::Table {
        *self.rest.borrow_mut() = true;
        let asked = self.asked.borrow();
        let left = self.table.iter().filter(|(key, _)| !asked.contains(key.get_ref().as_ref()));
        left.map(|(key, value)| (key.get_ref().to_string(), owned(value.get_ref()))).collect()
    }

    /// Reports every key that nobody asked for.
    fn finish(&self) {
        if *self.rest.borrow() {
            return;
        }
        let asked = self.asked.borrow();
        let known: Vec<&str> = asked.iter().copied().collect();
        for key in self.table.keys().filter(|key| !asked.contains(key.get_ref().as_ref())) {
            let remedy = nearest(key.get_ref(), &known).map_or_else(
                || format!("remove it; known here: {}", known.join(", ")),
                |word| format!("did you mean `{word}`?"),
            );
            self.sheet.report(key.span().start, self.key(key.get_ref()), "is not a known key", remedy);
        }
    }
}

fn owned(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(n) => toml::Value::Integer(i64::from_str_radix(n.as_str(), n.radix()).unwrap_or(i64::MAX)),
        DeValue::Float(x) => toml::Value::Float(x.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Datetime(stamp) => toml::Value::Datetime(*stamp),
        DeValue::Array(items) => toml::Value::Array(items.iter().map(|item| owned(item.get_ref())).collect()),
        DeValue::Table(table) => toml::Value::Table(
            table.iter().map(|(key, item)| (key.get_ref().to_string(), owned(item.get_ref()))).collect(),
        ),
    }
}

/// Parses `250ms`, `1.5s`, `15s`, `10m`, `2h`, `3d`.
pub(super) fn parse_span(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let thousandths: u64 = format!("{part:0<3}").parse().ok()?;
    let ms = whole.checked_mul(unit_ms)?.checked_add(thousandths * unit_ms / 1_000)?;
    Some(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_with_their_unit() {
        assert_eq!(parse_span("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_span("1.1s"), Some(Duration::from_millis(1_100)));
        assert_eq!(parse_span("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_span("10"), None);
        assert_eq!(parse_span("1.s5"), None);
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_line() {
        let text = "name = 7\nwitnes = true\n[[host]]\nname = \"a\"\nport = \"x\"\n";
        let read_it = |root: &Reader<'_>| {
            root.text("name");
            root.flag("witness");
            root.tables("host", |host| {
                host.text("name");
                host.number("port")
            });
            Some(())
        };
        let Problems(problems) = read("x.toml", text, read_it).expect_err("three problems");
        let said: Vec<(usize, &str)> = problems.iter().map(|p| (p.line, p.key.as_str())).collect();
        assert_eq!(said, [(1, "name"), (2, "witnes"), (5, "host.a.port")]);
        assert_eq!(problems[1].remedy, "did you mean `witness`?");
    }
}
