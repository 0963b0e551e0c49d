//! Whom the transport talks to: the seeds of `agent.toml` until the cluster spec says more, then the spec.

use crate::config::{AgentConfig, ClusterSpec};
use crate::driver::transport::{Dial, Peer};
use quorum::id::HostName;
use std::collections::BTreeMap;

/// The peers as the two files say together. A host of the spec without addresses keeps those of `agent.toml`.
pub(super) fn peers(config: &AgentConfig, spec: Option<&ClusterSpec>) -> Vec<Peer> {
    let mut peers: BTreeMap<HostName, Peer> = BTreeMap::new();
    for seed in &config.peers {
        let peer = Peer {
            host: seed.host.clone(),
            addresses: seed.addresses.clone(),
            dial: dial(config, seed.voter.is_some()),
        };
        peers.insert(seed.host.clone(), peer);
    }
    for host in spec.into_iter().flat_map(|spec| spec.hosts.values()) {
        if host.name == config.host || host.addresses.is_empty() {
            continue;
        }
        let votes = config.peers.iter().any(|seed| seed.host == host.name && seed.voter.is_some());
        // Hosts without a vote talk to voters only: what a cluster costs grows with hosts times voters.
        if config.voter.is_none() && !votes {
            continue;
        }
        let peer = Peer { host: host.name.clone(), addresses: host.addresses.clone(), dial: dial(config, votes) };
        peers.insert(host.name.clone(), peer);
    }
    peers.into_values().collect()
}

/// Two voters dial by name; a host without a vote dials the voters.
fn dial(config: &AgentConfig, peer_votes: bool) -> Dial {
    match (config.voter.is_some(), peer_votes) {
        (true, true) | (false, false) => Dial::ByName,
        (false, true) => Dial::Us,
        (true, false) => Dial::Them,
    }
}
