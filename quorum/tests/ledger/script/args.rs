//! One line of a script: words and `key=value` pairs.

use quorum::id::{Epoch, Era, Generation, GroupName, HostEpoch, HostName, LogIndex, PlanId, SiteName};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

/// A line taken apart. What nobody asked for is an error, so that a typo can't make a case pass.
pub struct Args<'a> {
    pub line: &'a str,
    words: Vec<&'a str>,
    used: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Args<'a> {
    pub fn new(line: &'a str) -> Self {
        Self { line, words: line.split_whitespace().collect(), used: RefCell::default() }
    }

    pub fn verb(&self) -> &'a str {
        self.words[0]
    }

    /// The nth word after the verb that has no `=`.
    pub fn word(&self, n: usize) -> &'a str {
        let word = self.plain().nth(n).unwrap_or_else(|| panic!("{:?} lacks word {n}", self.line));
        self.used.borrow_mut().insert(word);
        word
    }

    /// Every word from the nth on that has no `=`.
    pub fn words_from(&self, n: usize) -> Vec<&'a str> {
        let words: Vec<&str> = self.plain().skip(n).collect();
        self.used.borrow_mut().extend(&words);
        words
    }

    fn plain(&self) -> impl Iterator<Item = &'a str> {
        self.words.iter().skip(1).filter(|word| !word.contains('=')).copied()
    }

    pub fn pairs(&self) -> Vec<(&'a str, &'a str)> {
        let pairs: Vec<(&str, &str)> = self.words.iter().skip(1).filter_map(|word| word.split_once('=')).collect();
        self.used.borrow_mut().extend(self.words.iter().skip(1).filter(|word| word.contains('=')));
        pairs
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        let pair = self.words.iter().find(|word| word.split_once('=').is_some_and(|(k, _)| k == key))?;
        self.used.borrow_mut().insert(pair);
        pair.split_once('=').map(|(_, value)| value)
    }

    pub fn has(&self, flag: &str) -> bool {
        let found = self.words.iter().find(|word| **word == flag);
        self.used.borrow_mut().extend(found);
        found.is_some()
    }

    pub fn number(&self, key: &str, default: u64) -> u64 {
        self.get(key).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("number in {:?}", self.line)))
    }

    pub fn span(&self, key: &str, default: Duration) -> Duration {
        self.get(key).map_or(default, span)
    }

    /// Fails if a word was never looked at.
    pub fn finish(&self) {
        let used = self.used.borrow();
        let unused: Vec<&&str> = self.words.iter().skip(1).filter(|word| !used.contains(**word)).collect();
        assert!(unused.is_empty(), "nothing asks for {unused:?} in {:?}", self.line);
    }
}

pub fn span(text: &str) -> Duration {
    if text == "ever" {
        return Duration::MAX;
    }
    let digits = text.trim_end_matches(char::is_alphabetic);
    let value: u64 = digits.parse().unwrap_or_else(|_| panic!("span {text:?}"));
    match &text[digits.len()..] {
        "ms" => Duration::from_millis(value),
        "s" => Duration::from_secs(value),
        "m" => Duration::from_secs(60 * value),
        unit => panic!("unit {unit:?} of {text:?}"),
    }
}

pub fn list(text: &str) -> Vec<&str> {
    text.split(',').filter(|part| !part.is_empty()).collect()
}

pub fn host(text: &str) -> HostName {
    HostName::new(text).expect("host name")
}

pub fn site(text: &str) -> SiteName {
    SiteName::new(text).expect("site name")
}

pub fn group(text: &str) -> GroupName {
    GroupName::new(text).expect("group name")
}

/// `3` is the third of the first era, `2.3` the third of the second.
fn token(text: &str) -> (Era, u64) {
    let (era, count) = text.split_once('.').unwrap_or(("1", text));
    (Era(era.parse().expect("era")), count.parse().expect("count"))
}

pub fn host_epoch(text: &str) -> HostEpoch {
    let (era, count) = token(text);
    HostEpoch::in_era(era, count)
}

pub fn epoch(text: &str) -> Epoch {
    let (era, count) = token(text);
    Epoch::in_era(era, count)
}

pub fn index(text: &str) -> LogIndex {
    LogIndex(text.parse().unwrap_or_else(|_| panic!("index {text:?}")))
}

pub fn plan(text: &str) -> PlanId {
    PlanId(index(text).0)
}

pub fn generation(text: &str) -> Generation {
    Generation(text.parse().unwrap_or_else(|_| panic!("generation {text:?}")))
}

/// A word as sixteen bytes: equal words, equal bytes.
pub fn stamp(text: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let text = text.as_bytes();
    assert!(text.len() <= 16, "too long for a stamp");
    bytes[..text.len()].copy_from_slice(text);
    bytes
}
