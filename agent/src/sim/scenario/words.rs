//! A line of the script, word by word, with the names that may be in it.

use quorum::id::{GroupName, HostName, SiteName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Every name that a script may use.
#[derive(Clone, Debug, Default)]
pub(super) struct Cast {
    /// Hosts and where they stand.
    pub(super) hosts: BTreeMap<HostName, SiteName>,
    /// Groups.
    pub(super) groups: BTreeSet<GroupName>,
}

impl Cast {
    pub(super) fn at_site(&self, site: &SiteName) -> Vec<HostName> {
        self.hosts.iter().filter(|(_, at)| *at == site).map(|(host, _)| host.clone()).collect()
    }

    fn sites(&self) -> BTreeSet<&SiteName> {
        self.hosts.values().collect()
    }
}

/// What is left of a line.
pub(super) struct Words<'t> {
    rest: &'t str,
    pub(super) cast: &'t Cast,
}

impl<'t> Words<'t> {
    pub(super) fn new(line: &'t str, cast: &'t Cast) -> Self {
        Self { rest: line.trim(), cast }
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> Result<&'t str, String> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Err("ends too early".to_owned()) } else { Ok(rest) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next word; one in double quotes may have spaces.
    pub(super) fn next(&mut self) -> Result<&'t str, String> {
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or("a quote isn't closed")?;
            self.rest = quoted[end + 1..].trim_start();
            return Ok(&quoted[..end]);
        }
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        if end == 0 {
            return Err("ends too early".to_owned());
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        Ok(word)
    }

    /// Takes the next word if it is this one.
    pub(super) fn took(&mut self, word: &str) -> bool {
        let mut ahead = Words { rest: self.rest, cast: self.cast };
        let is_it = ahead.next() == Ok(word);
        if is_it {
            self.rest = ahead.rest;
        }
        is_it
    }

    pub(super) fn must(&mut self, word: &str) -> Result<(), String> {
        if self.took(word) { Ok(()) } else { Err(format!("{word:?} is missing before {:?}", self.rest)) }
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("{:?} is too much", self.rest)) }
    }

    pub(super) fn span(&mut self) -> Result<Duration, String> {
        let word = self.next()?;
        parse_span(word).ok_or_else(|| format!("{word:?} is no span; write 250ms, 1.5s, 3m or 1h"))
    }

    pub(super) fn number(&mut self) -> Result<i64, String> {
        let word = self.next()?;
        word.parse().map_err(|_| format!("{word:?} is no whole number"))
    }

    pub(super) fn host(&mut self) -> Result<HostName, String> {
        let word = self.next()?;
        let found = self.cast.hosts.keys().find(|host| host.as_str() == word).cloned();
        found.ok_or_else(|| format!("no host {word:?}; hosts are {}", list(self.cast.hosts.keys())))
    }

    pub(super) fn group(&mut self) -> Result<GroupName, String> {
        let word = self.next()?;
        let found = self.cast.groups.iter().find(|group| group.as_str() == word).cloned();
        found.ok_or_else(|| format!("no group {word:?}; groups are {}", list(&self.cast.groups)))
    }

    pub(super) fn site(&mut self) -> Result<SiteName, String> {
        let word = self.next()?;
        let found = self.cast.sites().into_iter().find(|site| site.as_str() == word).cloned();
        found.ok_or_else(|| format!("no site {word:?}; sites are {}", list(self.cast.sites())))
    }

    /// A host, `site:NAME`, `all`, or several of them with commas.
    pub(super) fn hosts(&mut self) -> Result<Vec<HostName>, String> {
        let word = self.next()?;
        let mut hosts = Vec::new();
        for part in word.split(',') {
            match part.split_once(':') {
                None if part == "all" => hosts.extend(self.cast.hosts.keys().cloned()),
                None => hosts.push(Words { rest: part, cast: self.cast }.host()?),
                Some(("site", site)) => {
                    hosts.extend(self.cast.at_site(&Words { rest: site, cast: self.cast }.site()?));
                }
                Some((kind, _)) => return Err(format!("{kind:?} is no kind of place; write HOST, site:NAME or all")),
            }
        }
        Ok(hosts)
    }
}

fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// `250ms`, `1.5s`, `3m`, `1h`; also what `Debug` writes of a span.
pub(super) fn parse_span(word: &str) -> Option<Duration> {
    let unit_at = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = word.split_at(unit_at);
    let number: f64 = number.parse().ok()?;
    let second = match unit {
        "ns" => 1e-9,
        "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!(parse_span("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_span("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["5", "", "s", "1x", "1.2.3s", "-1s"] {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn quoted_words_keep_their_spaces() {
        let cast = Cast::default();
        let mut words = Words::new("one \"two three\" four", &cast);
        assert_eq!((words.next(), words.next(), words.next()), (Ok("one"), Ok("two three"), Ok("four")));
        assert!(words.is_over());
    }
}
