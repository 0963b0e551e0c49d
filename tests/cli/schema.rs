//! The committed schemas, made strict: a field that a schema doesn't know is an error here.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/schemas")
}

/// The names of all schemas.
pub fn names() -> BTreeSet<String> {
    let files = std::fs::read_dir(dir()).expect("the schemas").filter_map(|entry| Some(entry.ok()?.path()));
    let schemas = files.filter(|path| path.extension().is_some_and(|ext| ext == "json"));
    schemas.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// Refuses what `properties` doesn't list, at every level that doesn't say otherwise.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".into(), json!(false));
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

/// What is wrong with a document by the schema of this name.
pub fn complaints(name: &str, document: &Value) -> Vec<String> {
    let text = std::fs::read_to_string(dir().join(format!("{name}.json"))).expect("the schema");
    let mut schema: Value = serde_json::from_str(&text).expect("JSON");
    strict(&mut schema);
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn a_strict_schema_refuses_an_unknown_field_a_missing_one_and_an_unknown_word() {
    let good = json!({"api_version": 1, "verdict": "intact", "length": 0, "hash": "0".repeat(64), "index": 1,
        "compared_with_log": 0, "findings": [], "records": [], "seen_by": "a", "as_of_ms": 0});
    assert_eq!(complaints("audit", &good), Vec::<String>::new());
    for (key, value) in [("more", json!(1)), ("verdict", json!("fine")), ("api_version", json!(2))] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(!complaints("audit", &bad).is_empty(), "{key}");
    }
    let mut missing = good.clone();
    missing.as_object_mut().expect("an object").remove("findings");
    assert!(!complaints("audit", &missing).is_empty());
}
