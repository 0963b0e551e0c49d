//! `/etc/antipode/agent.toml`: who am I, where are my files, who are my peers.

use super::reader::{Problems, Reader, read};
use crate::engine::FOUNDING_IDS_MAX;
use quorum::id::{ClusterName, HostName, SiteName, VoterId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

/// This host's own configuration.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The cluster's name; a peer of another cluster is refused.
    pub cluster: String,
    /// This host.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// Where the log and the journals live: a local disk, never protected storage.
    pub data_dir: PathBuf,
    /// Sockets and shared pages, on tmpfs.
    pub run_dir: PathBuf,
    /// Where agents reach this one, one address per path.
    pub listen: Vec<SocketAddr>,
    /// Prometheus' port, if any.
    pub metrics: Option<SocketAddr>,
    /// The admin API for other machines, if any.
    pub admin: Option<SocketAddr>,
    /// Certificates.
    pub tls: TlsFiles,
    /// The keeper; a host without one is of class D.
    pub keeper: Option<KeeperConfig>,
    /// This host votes.
    pub voter: Option<VoterConfig>,
    /// Whom to reach until the cluster spec says more.
    pub peers: Vec<PeerConfig>,
    /// Who is told of what needs a person's attention.
    pub notify: Option<NotifyConfig>,
}

/// How people are told.
#[derive(Clone, Debug, Default)]
pub struct NotifyConfig {
    /// A program that is called for each item (`examples/adapters/README.md`).
    pub command: Option<String>,
    /// An `http://` address to which each item is posted.
    pub webhook: Option<String>,
}

/// Certificate files in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The cluster's authorities.
    pub ca: PathBuf,
    /// This host's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Revocations, if any.
    pub crl: Option<PathBuf>,
}

/// Where the keeper is found.
#[derive(Clone, Debug)]
pub struct KeeperConfig {
    /// Directory of the shared record and page.
    pub dir: PathBuf,
    /// The protected slice: a cgroup v2 directory.
    pub slice: PathBuf,
    /// How many fire tests of this host's watchdog succeeded when it was commissioned (`antipode keeper
    /// --fire-test`). With none its lease proves nothing.
    pub fire_tests: u32,
}

/// This host's vote.
#[derive(Clone, Debug)]
pub struct VoterConfig {
    /// Its id in Raft, never reused.
    pub id: VoterId,
    /// It would rather lead: set at the witness.
    pub prefer_leader: bool,
    /// A file whose content changes when the machine is rolled back or copied.
    pub generation_id: Option<PathBuf>,
}

/// Another agent.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Its host.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// Where it is reached, one address per path, in the order of our own paths.
    pub addresses: Vec<SocketAddr>,
    /// Its id in Raft at the cluster's birth, if it votes.
    pub voter: Option<VoterId>,
}

impl AgentConfig {
    /// Reads `text`, the content of `file`.
    ///
    /// # Errors
    /// Every problem of the file at once.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        read(file, text, Self::read)
    }

    fn read(root: &Reader<'_>) -> Option<Self> {
        let cluster: Option<ClusterName> = root.required("cluster");
        let host = root.required("host");
        let site = root.required("site");
        let data_dir = root.path("data_dir").unwrap_or_else(|| "/var/lib/antipode".into());
        let run_dir = root.path("run_dir").unwrap_or_else(|| "/run/antipode".into());
        if data_dir == run_dir {
            root.problem("run_dir", "is the data directory as well", "use a folder that a reboot empties, on tmpfs");
        }
        let network = root.table("network", |net| {
            let listen: Vec<SocketAddr> = net.list("listen");
            if listen.is_empty() || listen.len() > 2 {
                net.problem("listen", "needs one or two addresses", "write e.g. [\"192.0.2.1:7600\"], one per path");
            }
            (listen, net.parsed("metrics"))
        });
        if network.is_none() {
            root.problem("network", "is missing", "add [network] with `listen`");
        }
        let tls = root.table("tls", |tls| {
            let (ca, cert, key) = (tls.required_path("ca"), tls.required_path("cert"), tls.required_path("key"));
            Some(TlsFiles { ca: ca?, cert: cert?, key: key?, crl: tls.path("crl") })
        });
        if tls.is_none() {
            root.problem("tls", "is missing", "add [tls] with `ca`, `cert` and `key`; `antipode pki issue` makes them");
        }
        let keeper = root.table("keeper", |keeper| {
            let (dir, slice) = (keeper.required_path("dir"), keeper.required_path("slice"));
            let fire_tests = keeper.number("fire_tests").unwrap_or(0);
            Some(KeeperConfig { dir: dir?, slice: slice?, fire_tests: u32::try_from(fire_tests).unwrap_or(u32::MAX) })
        });
        let voter = root.table("voter", Self::read_voter);
        let peers = root.tables("peer", |peer| {
            let (host, site) = (peer.required("host"), peer.required("site"));
            let addresses = peer.list("addresses");
            if addresses.is_empty() {
                peer.problem("addresses", "is missing or empty", "write e.g. [\"192.0.2.2:7600\"]");
            }
            let voter = peer.number("voter").map(VoterId);
            Some(PeerConfig { host: host?, site: site?, addresses, voter })
        });
        let notify = root.table("notify", |notify| {
            let (command, webhook) = (notify.text("command"), notify.text("webhook"));
            if command.is_none() && webhook.is_none() {
                notify.problem("command", "is missing", "name a program, or a `webhook`");
            }
            if webhook.as_ref().is_some_and(|address: &String| !address.starts_with("http://")) {
                notify.problem("webhook", "isn't an http:// address", "use a relay on this host, or a `command`");
            }
            NotifyConfig { command, webhook }
        });
        let admin = root.table("admin", |admin| admin.required("listen"));
        let (listen, metrics) = network?;
        let (cluster, host, site, tls) = (cluster?.to_string(), host?, site?, tls??);
        let (keeper, voter, admin) = (keeper.flatten(), voter.flatten(), admin.flatten());
        let config =
            Self { cluster, host, site, data_dir, run_dir, listen, metrics, admin, tls, keeper, voter, peers, notify };
        config.check(root);
        Some(config)
    }

    fn read_voter(voter: &Reader<'_>) -> Option<VoterConfig> {
        let id = voter.number("id").filter(|id| *id > 0);
        if id.is_none() {
            voter.problem("id", "is missing or 0", "give each voter its own number from 1, never reused");
        }
        if id.is_some_and(|id| id > FOUNDING_IDS_MAX) {
            voter.problem("id", "is above 1000", "ids above it are given to voters that join later: take a small one");
        }
        Some(VoterConfig {
            id: VoterId(id?),
            prefer_leader: voter.flag("prefer_leader").unwrap_or(false),
            generation_id: voter.path("generation_id"),
        })
    }

    /// What only shows between keys: names and votes that are given twice, paths that lead nowhere.
    fn check(&self, root: &Reader<'_>) {
        let mut votes: BTreeMap<VoterId, &HostName> = BTreeMap::new();
        votes.extend(self.voter.as_ref().map(|voter| (voter.id, &self.host)));
        let mut named: BTreeSet<&HostName> = BTreeSet::new();
        for peer in &self.peers {
            let at = ["peer", peer.host.as_str()];
            if peer.host == self.host {
                root.problem_at(&at, "is this host itself", "list the others only");
            } else if !named.insert(&peer.host) {
                root.problem_at(&at, "is there twice", "give each peer one table");
            } else if let Some(other) = peer.voter.and_then(|id| votes.insert(id, &peer.host)) {
                let what = format!("has the same voter id as {other}: two voters would count as one");
                root.problem_at(&["peer", peer.host.as_str(), "voter"], what, "give each voter its own number");
            }
            if peer.addresses.len() > self.listen.len() {
                let (theirs, own) = (peer.addresses.len(), self.listen.len());
                let what = format!("has {theirs} paths, this host listens on {own}");
                root.problem_at(&["peer", peer.host.as_str(), "addresses"], what, "give both ends the same paths");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cluster = "demo"
host = "tk-1"
site = "tokyo"
[network]
listen = ["127.0.0.1:7600"]
[tls]
ca = "ca.pem"
cert = "host.pem"
key = "host.key"
[keeper]
dir = "/run/antipode/keeper"
slice = "/sys/fs/cgroup/antipode"
[voter]
id = 1
[[peer]]
host = "os-1"
site = "osaka"
addresses = ["127.0.0.2:7600"]
voter = 2
"#;

    #[test]
    fn a_complete_file_is_read() {
        let config = AgentConfig::parse("agent.toml", GOOD).expect("a good file");
        assert_eq!(config.host.as_str(), "tk-1");
        assert_eq!(config.peers[0].voter, Some(VoterId(2)));
        assert_eq!(config.voter.expect("a voter").id, VoterId(1));
    }

    #[test]
    fn an_empty_file_says_everything_that_is_missing() {
        let Problems(problems) = AgentConfig::parse("agent.toml", "").expect_err("nothing is there");
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["cluster", "host", "site", "network", "tls"]);
    }
}
