//! What the program says of itself: the help of every verb compared, and a man page for each.

use super::lab::antipode;

/// The verbs below these, as the help lists them.
fn verbs(path: &[&str]) -> Vec<String> {
    let help = antipode(&[path, &["--help"]].concat());
    assert_eq!(help.exit, 0, "{help:?}");
    let listed = help.out.split("Commands:\n").nth(1).unwrap_or_default();
    // A description that goes on in the next line stands further in.
    let entries = listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = entries.filter(|entry| !entry.starts_with(' ')).filter_map(|entry| entry.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// All of them, each as the words that lead to it.
fn all() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        open.extend(verbs(&words).into_iter().map(|verb| [path.clone(), vec![verb]].concat()));
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn the_help_of_every_verb_is_the_committed_one() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cli/help.txt");
    let mut text = String::new();
    for path in all() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let help = antipode(&[words.as_slice(), &["--help"]].concat());
        text.push_str(
            &format!("$ antipode {} --help\n{}\n", words.join(" "), help.out).replace("antipode  --", "antipode --"),
        );
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &text).expect("written");
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = before.lines().zip(text.lines()).find(|(was, is)| was != is);
    assert!(before == text, "the help changed (BLESS=1 after reading the difference); first at {differs:?}");
}

#[test]
fn every_verb_has_its_man_page() {
    let dir = tempfile::tempdir().expect("a folder");
    let said = antipode(&["man", &dir.path().display().to_string()]);
    assert_eq!(said.exit, 0, "{said:?}");
    for path in all() {
        let page = [vec!["antipode".to_owned()], path].concat().join("-") + ".1";
        let text = std::fs::read_to_string(dir.path().join(&page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}");
    }
}

#[test]
fn completions_come_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let said = antipode(&["completion", shell]);
        assert!(said.exit == 0 && said.out.contains("switchover"), "{shell}");
    }
}
