//! Releases: whether this host runs what is installed here, and what the cluster needs of it.
//!
//! Three things may differ during an upgrade: the program installed (this one), the agent and the keeper that run, and the
//! version of entries and messages that is in force. An agent that doesn't understand the version in force ends at once.

use super::{Finding, State};
use crate::config::AgentConfig;
use quorum::ledger::VERSION;
use serde_json::Value;
use std::path::Path;

const CHECK: &str = "versions";
/// The attention line that this check tells in more detail.
pub(super) const ATTENTION: &str = "version-behind";
/// How this host gets a newer release.
const UPGRADE: &str =
    "install the newer release here, systemctl reload antipode-keeper, systemctl restart antipode-agent";

/// How this program, this host's agent and the others stand to the cluster's version.
pub(super) fn releases(host: Option<&str>, status: Option<&Value>) -> Vec<Finding> {
    judge(VERSION, host, status)
}

fn judge(installed: u32, host: Option<&str>, status: Option<&Value>) -> Vec<Finding> {
    let version = status.map(|status| &status["version"]);
    let number = |key: &str| version.and_then(|version| version[key].as_u64()).and_then(|n| u32::try_from(n).ok());
    let (Some(cluster), Some(here)) = (number("cluster"), number("here")) else {
        let text = format!(
            "no agent says which version the cluster is at; the program installed here understands {installed} at most, and \
             an agent that is too old ends at once and says so"
        );
        return vec![Finding::other(CHECK, State::Unknown, (text, "journalctl -u antipode-agent"))];
    };
    if installed < cluster {
        let text = format!(
            "the cluster is at version {cluster} and the program installed here understands {installed} at most: an agent \
             started from it ends at once, and what runs on this host then ends with its lease"
        );
        return vec![Finding::other(CHECK, State::Bad, (text, UPGRADE))];
    }
    let mut findings = Vec::new();
    if here != installed {
        let text = format!(
            "the agent understands version {here}, the program installed here {installed}: it was started before that was \
             installed, or from elsewhere"
        );
        let next = "systemctl restart antipode-agent: within the lease's slack guests don't notice";
        findings.push(Finding::other(CHECK, State::Weak, (text, next)));
    }
    let behind: Vec<&str> =
        version.and_then(|v| v["behind"].as_array()).into_iter().flatten().filter_map(Value::as_str).collect();
    findings.extend(held_back(cluster, host, &behind));
    if findings.is_empty() {
        let text = format!("the cluster is at version {cluster}, this host understands {here}, and nobody is behind");
        findings.push(Finding::good(CHECK, text));
    }
    findings
}

/// Somebody understands more than the version in force, and these don't.
fn held_back(cluster: u32, host: Option<&str>, behind: &[&str]) -> Option<Finding> {
    let first = behind.first()?;
    let stays = format!("the cluster stays at version {cluster}, and whatever newer releases bring stays off");
    let (text, next) = match host.filter(|host| behind.contains(host)) {
        Some(host) => {
            (format!("{host} runs an older release than others and holds them back: {stays}"), UPGRADE.to_owned())
        }
        None => {
            let text = format!("{} run an older release and hold the others back: {stays}", behind.join(", "));
            (text, format!("install the newer release on {first}"))
        }
    };
    Some(Finding::other(CHECK, State::Weak, (text, next)))
}

/// A keeper that wasn't told to go on as the program that is installed now; `None` where that can't be seen.
pub(super) fn keeper(config: &AgentConfig) -> Option<Finding> {
    let keeper = config.keeper.as_ref()?;
    let page = crate::keeper::PageReader::open(&keeper.dir).and_then(|mut reader| reader.page()).ok()?;
    let program = std::fs::read_link(format!("/proc/{}/exe", page.pid)).ok()?;
    is_replaced(&program).then(|| {
        let text = format!(
            "the keeper runs a program that is installed no more ({}): what newer releases mended in it isn't in force",
            program.display()
        );
        let next = "systemctl reload antipode-keeper: the watchdog stays open and guests don't notice";
        Finding::other(CHECK, State::Weak, (text, next))
    })
}

/// The kernel says it of a program whose file was replaced or removed.
fn is_replaced(program: &Path) -> bool {
    program.to_string_lossy().ends_with(" (deleted)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(installed: u32, (cluster, here): (u32, u32), behind: &[&str]) -> Vec<(State, String, String)> {
        let status = json!({ "version": { "cluster": cluster, "here": here, "behind": behind } });
        let findings = judge(installed, Some("os-1"), Some(&status));
        findings.into_iter().map(|finding| (finding.state, finding.text, finding.next)).collect()
    }

    #[test]
    fn releases_of_one_version_are_good() {
        assert!(matches!(&judged(2, (2, 2), &[])[..], [(State::Good, _, _)]));
        // Everybody understands more: the leader raises it in a moment.
        assert!(matches!(&judged(2, (1, 2), &[])[..], [(State::Good, _, _)]));
    }

    #[test]
    fn a_host_that_holds_the_cluster_back_is_told_what_to_do_here() {
        let found = judged(1, (1, 1), &["os-1", "tk-1"]);
        let [(State::Weak, text, next)] = &found[..] else { panic!("{found:?}") };
        assert!(text.contains("os-1 runs an older release") && text.contains("stays at version 1"), "{text}");
        assert_eq!(next, UPGRADE);
    }

    #[test]
    fn on_a_newer_host_those_that_hold_it_back_are_named() {
        let found = judged(2, (1, 2), &["ng-1", "tk-1"]);
        let [(State::Weak, text, next)] = &found[..] else { panic!("{found:?}") };
        assert!(text.contains("ng-1, tk-1") && next.ends_with("on ng-1"), "{text}; {next}");
    }

    #[test]
    fn an_installed_program_that_is_too_old_is_bad_before_the_agent_is_started_again() {
        let found = judged(1, (2, 2), &[]);
        let [(State::Bad, text, next)] = &found[..] else { panic!("{found:?}") };
        assert!(text.contains("understands 1 at most") && text.contains("ends with its lease"), "{text}");
        assert_eq!(next, UPGRADE);
    }

    #[test]
    fn an_agent_that_was_not_restarted_after_the_installation_is_told() {
        let found = judged(2, (1, 1), &["os-1"]);
        let [(State::Weak, text, next), (State::Weak, _, _)] = &found[..] else { panic!("{found:?}") };
        assert!(text.contains("the agent understands version 1") && next.contains("restart antipode-agent"), "{text}");
    }

    #[test]
    fn without_an_agent_nothing_is_known() {
        let found = judge(1, None, None);
        assert!(matches!(&found[..], [Finding { state: State::Unknown, .. }]), "{found:?}");
        assert!(found[0].next.contains("journalctl"));
    }

    #[test]
    fn a_program_that_was_replaced_is_recognised() {
        assert!(is_replaced(Path::new("/usr/sbin/antipode (deleted)")));
        assert!(!is_replaced(Path::new("/usr/sbin/antipode")));
    }
}
