//! `bundle`: what support needs, in one tar archive, with secrets removed.
//!
//! Contract: nothing leaves unread. Every text goes through [`masked`], which blanks the values of keys that name a
//! secret, and whole private keys; key files and the certificate authority are never opened.

use super::doctor::{self, DoctorArgs};
use super::options::Format;
use super::{Failure, Outcome, client};
use crate::admin::Exit;
use crate::engine::API_VERSION;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `bundle`.
#[derive(Debug, clap::Args)]
pub(super) struct BundleArgs {
    /// The archive; it must not be there yet
    #[arg(long, value_name = "FILE", default_value = "antipode-bundle.tar")]
    out: PathBuf,
    #[command(flatten)]
    doctor: DoctorArgs,
}

/// At most this much of the event journal: its end.
const EVENTS_BYTES_MAX: usize = 4 << 20;

/// What the agent is asked, and how it is called in the archive.
const ASKED: [(&str, &str); 7] = [
    ("/v1/status", "status.json"),
    ("/v1/timing", "timing.json"),
    ("/v1/plans", "plans.json"),
    ("/v1/spec", "spec.json"),
    ("/v1/revisions", "revisions.json"),
    ("/v1/audit", "audit.json"),
    ("/v1/events", "events-begin.json"),
];

/// Words in a key that make its value a secret. A reference to a secret (a table) is none.
const SECRET: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "token", "community", "credential", "private", "api_key"];

const MASK: &str = "***";

pub(super) fn run(args: &BundleArgs) -> Result<Outcome, Failure> {
    let files = collect(args);
    let failed = |error: std::io::Error| {
        let text = format!("write {}: {error}", args.out.display());
        Failure::new(Exit::Error, "file-unwritable", text, "name another file with --out")
    };
    let mut archive = Vec::new();
    for (name, content) in &files {
        append(&mut archive, (name, masked(content).as_bytes()));
    }
    // Two empty blocks end a tar archive.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&args.out).map_err(failed)?;
    std::io::Write::write_all(&mut file, &archive).and_then(|()| file.sync_all()).map_err(failed)?;
    let (out, names) = (args.out.display().to_string(), files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    Ok(Outcome::done(match args.doctor.shown_format() {
        Format::Text => format!("{out}: {} files, secrets removed\n{}\n", names.len(), names.join("\n")),
        Format::Json => format!("{}\n", json!({"api_version": API_VERSION, "file": out, "contains": names})),
    }))
}

/// Name and content of each file. What can't be had is in the archive as the reason why.
fn collect(args: &BundleArgs) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (path, name) in ASKED {
        let content = match client::get(&args.doctor.reach, path) {
            Ok(document) => format!("{document:#}\n"),
            Err(failure) => failure.to_json(),
        };
        files.push((name.to_owned(), content));
    }
    let examined = serde_json::to_value(doctor::examine(&args.doctor)).expect("a document is plain data");
    files.push(("doctor.json".to_owned(), format!("{examined:#}\n")));
    files.push(("version.txt".to_owned(), format!("antipode {}\n", env!("CARGO_PKG_VERSION"))));
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).unwrap_or_else(|error| format!("can't be read: {error}\n"))
    };
    let config = read(&args.doctor.config);
    let parsed = crate::config::AgentConfig::parse("agent.toml", &config).ok();
    files.push(("agent.toml".to_owned(), config));
    if let Some(config) = parsed {
        let events = read(&config.data_dir.join("events.jsonl"));
        let from =
            (events.len().saturating_sub(EVENTS_BYTES_MAX)..events.len()).find(|at| events.is_char_boundary(*at));
        files.push(("events.jsonl".to_owned(), events[from.unwrap_or(events.len())..].to_owned()));
    }
    for (name, path) in
        [("kernel.txt", "/proc/version"), ("memory.txt", "/proc/meminfo"), ("load.txt", "/proc/loadavg")]
    {
        files.push((name.to_owned(), read(std::path::Path::new(path))));
    }
    files
}

/// The text without the values of secrets. In TOML, in JSON, and in TOML that a JSON text holds.
fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("PRIVATE KEY-----") {
            if !in_key || line.contains("-----BEGIN") {
                out.push_str("(a private key was here)\n");
            }
            // A key on one line begins and ends there.
            in_key = line.contains("-----BEGIN") && !line.contains("-----END");
            continue;
        }
        if !in_key {
            out.push_str(&masked_line(line));
        }
    }
    out
}

/// Blanks every quoted value behind a key with a telling word.
fn masked_line(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut out = String::with_capacity(line.len());
    let mut from = 0;
    while let Some(key) = next_secret(&lower, from) {
        let Some((begin, end)) = value_after(line, key) else {
            out.push_str(&line[from..key]);
            from = key;
            continue;
        };
        out.push_str(&line[from..begin]);
        out.push_str(MASK);
        from = end;
    }
    out.push_str(&line[from..]);
    out
}

/// Behind the next telling word from here on.
fn next_secret(lower: &str, from: usize) -> Option<usize> {
    SECRET.iter().filter_map(|word| lower[from..].find(word).map(|at| from + at + word.len())).min()
}

/// Where the quoted value of a key that ends at `key` stands, if one follows: `key = "…"`, `"key": "…"`, or either with
/// escaped quotes.
fn value_after(line: &str, key: usize) -> Option<(usize, usize)> {
    let is_key_rest = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let mut at = key + line[key..].find(|c: char| !is_key_rest(c))?;
    at += line[at..].find(|c: char| !"\"'\\ \t".contains(c))?;
    if !matches!(line.as_bytes()[at], b'=' | b':') {
        return None;
    }
    at += 1;
    at += line[at..].find(|c: char| !" \t\\".contains(c))?;
    let quote = line[at..].chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let is_escaped = line.as_bytes()[at - 1] == b'\\';
    let begin = at + 1;
    let closing = if is_escaped { format!("\\{quote}") } else { quote.to_string() };
    let mut end = begin;
    loop {
        end += line[end..].find(&closing)?;
        // An escaped quote inside the value doesn't end it.
        if is_escaped || end == begin || line.as_bytes()[end - 1] != b'\\' {
            return Some((begin, end));
        }
        end += 1;
    }
}

const BLOCK: usize = 512;

/// One file in the ustar format, as POSIX describes it.
fn append(archive: &mut Vec<u8>, (name, content): (&str, &[u8])) {
    let mut header = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, format!("antipode-bundle/{name}").as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    // The checksum counts its own field as blanks.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_blanked_however_they_are_written() {
        for (given, expected) in [
            ("password = \"hunter2\"\n", "password = \"***\"\n"),
            ("bmc = { user = \"a\", Password='x', port = 1 }\n", "bmc = { user = \"a\", Password='***', port = 1 }\n"),
            ("{\"api_token\": \"abc\", \"x\": 1}", "{\"api_token\": \"***\", \"x\": 1}"),
            (
                "{\"source\":\"password = \\\"hunter2\\\"\\nuser = \\\"a\\\"\"}",
                "{\"source\":\"password = \\\"***\\\"\\nuser = \\\"a\\\"\"}",
            ),
            ("password = \"with \\\" inside\"\n", "password = \"***\"\n"),
            ("the token was refused\n", "the token was refused\n"),
            ("password = { file = \"/etc/x\" }\n", "password = { file = \"/etc/x\" }\n"),
            ("secret_a = \"1\", secret_b = \"2\"", "secret_a = \"***\", secret_b = \"***\""),
        ] {
            assert_eq!(masked(given), expected);
        }
    }

    #[test]
    fn private_keys_go_as_a_whole() {
        let pem = "a\n-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\nb\n";
        assert_eq!(masked(pem), "a\n(a private key was here)\nb\n");
    }

    #[test]
    fn a_header_says_name_size_and_its_own_sum() {
        let mut archive = Vec::new();
        append(&mut archive, ("a.txt", b"hello"));
        assert_eq!(archive.len(), 2 * BLOCK);
        assert!(archive.starts_with(b"antipode-bundle/a.txt\0"));
        assert_eq!(&archive[124..136], b"00000000005\0");
        assert_eq!(&archive[512..517], b"hello");
    }
}
