//! This host's certificate: whose it is, how long it lasts, whether it may be read by others.

use super::{Finding, State};
use crate::config::AgentConfig;
use crate::driver::transport::client_verifier;
use crate::pki::files::{IdentityFiles, Material};
use crate::pki::identity::{self, Identity};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use x509_parser::prelude::{FromDer, X509Certificate};

const CHECK: &str = "certificates";

/// Less than this many days left is told: a new one has to be fetched, and connections made after the end are refused.
const DAYS_WARNED: i64 = 30;

/// How far the certificates of this host are good.
pub(super) fn certificates(config: &AgentConfig) -> Vec<Finding> {
    let files = IdentityFiles {
        authorities: config.tls.ca.clone(),
        certificate: config.tls.cert.clone(),
        key: config.tls.key.clone(),
        crl: config.tls.crl.clone(),
    };
    let material = match files.load() {
        Ok(material) => material,
        Err(error) => return vec![bad(format!("failed to {error}"))],
    };
    let mut findings = vec![whose(config, &material.chain[0]), trusted(&material)];
    findings.extend(material.chain.first().map(|leaf| left("this host's certificate", leaf)));
    findings.extend(material.roots.iter().map(|root| left("a root", root)));
    findings.push(lists(&material));
    findings.extend(private(&files.key));
    findings
}

fn bad(text: String) -> Finding {
    Finding::other(CHECK, State::Bad, (text, "antipode pki issue or antipode pki renew, then copy the files here"))
}

fn whose(config: &AgentConfig, leaf: &CertificateDer<'_>) -> Finding {
    match identity::from_certificate(leaf) {
        Ok(Identity::Host { cluster, host, site })
            if cluster.as_str() == config.cluster && host == config.host && site == config.site =>
        {
            Finding::good(CHECK, format!("it is of {host} at {site} in {cluster}"))
        }
        Ok(other) => bad(format!("it is of {other}; the configuration says {} at {}", config.host, config.site)),
        Err(error) => bad(format!("failed to {error}")),
    }
}

/// As the other agents will judge it.
fn trusted(material: &Material) -> Finding {
    let verified = client_verifier(material).map_err(|error| error.to_string()).and_then(|verifier| {
        verifier
            .verify_client_cert(&material.chain[0], &material.chain[1..], UnixTime::now())
            .map_err(|error| error.to_string())
    });
    match verified {
        Ok(_) => Finding::good(CHECK, "the roots and lists here vouch for it"),
        Err(because) => bad(format!("the roots and lists here don't vouch for it: {because}")),
    }
}

fn left(what: &str, der: &CertificateDer<'_>) -> Finding {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return bad(format!("{what} can't be read")) };
    let until = certificate.validity().not_after.timestamp();
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    match (until - now).div_euclid(86_400) {
        days if days < 0 => bad(format!("{what} has expired: new connections are refused")),
        days if days < DAYS_WARNED => {
            let text = format!("{what} has {days} days left");
            Finding::other(CHECK, State::Weak, (text, "antipode pki renew, then copy the files here"))
        }
        days => Finding::good(CHECK, format!("{what} has {days} days left")),
    }
}

fn lists(material: &Material) -> Finding {
    match &material.crls {
        Some(lists) => Finding::good(CHECK, format!("{} revocation lists are honoured", lists.len())),
        None => {
            let text = "no revocation list is configured: a stolen certificate can't be shut out";
            Finding::other(CHECK, State::Weak, (text, "set tls.crl in agent.toml to the authority's crl.pem"))
        }
    }
}

fn private(key: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(key).ok()?.permissions().mode() & 0o777;
    Some(if mode & 0o077 == 0 {
        Finding::good(CHECK, "the private key is readable by its owner only")
    } else {
        let text = format!("the private key {} has mode {mode:o}: others may read it", key.display());
        Finding::other(CHECK, State::Bad, (text, format!("chmod 600 {}", key.display())))
    })
}
