//! What changes between two versions of a spec, key by key, whatever their layout.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A key whose value changes. At least one of the two values is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key, dotted, as `group.erp.tier`.
    pub key: String,
    /// What it is, as TOML; none if the key is new.
    pub is: Option<String>,
    /// What it would be; none if the key goes.
    pub becomes: Option<String>,
}

/// The changes that lead from one text to another, sorted by key. A text that is no TOML has no keys.
pub fn between(is: &str, becomes: &str) -> Vec<Change> {
    let (is, becomes) = (flat(is), flat(becomes));
    let keys: BTreeSet<&String> = is.keys().chain(becomes.keys()).collect();
    let change =
        |key: &String| Change { key: key.clone(), is: is.get(key).cloned(), becomes: becomes.get(key).cloned() };
    keys.into_iter().map(change).filter(|change| change.is != change.becomes).collect()
}

fn flat(text: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        flatten("", &toml::Value::Table(table), &mut keys);
    }
    keys
}

/// Tables in a list go by their names, so that moving one is no change.
fn flatten(path: &str, value: &toml::Value, keys: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(key, value)| flatten(&below(key), value, keys)),
        toml::Value::Array(items) if items.iter().all(toml::Value::is_table) && !items.is_empty() => {
            for (number, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(toml::Value::as_str);
                let name = name.map_or_else(|| format!("[{number}]"), str::to_owned);
                flatten(&below(&name), item, keys);
            }
        }
        _ => {
            keys.insert(path.to_owned(), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_its_key_and_moving_a_table_is_none() {
        let old = "[[host]]\nname = \"a\"\nsite = \"x\"\n[[host]]\nname = \"b\"\nsite = \"x\"\n";
        let new = "[[host]]\nname = \"b\"\nsite = \"y\"\n[[host]]\nname = \"a\"\nsite = \"x\"\nextra = 1\n";
        let told: Vec<String> = between(old, new)
            .iter()
            .map(|c| format!("{} {:?} {:?}", c.key, c.is.as_deref(), c.becomes.as_deref()))
            .collect();
        assert_eq!(told, ["host.a.extra None Some(\"1\")", "host.b.site Some(\"\\\"x\\\"\") Some(\"\\\"y\\\"\")"]);
        assert!(between(old, old).is_empty());
    }
}
