//! `pki`: the cluster's certificate authority, a directory of files. Needs no agent.

use super::options::{Format, Shown};
use super::{Failure, Outcome};
use crate::pki::authority::{HOST_VALID_FOR, Holder, OPERATOR_VALID_FOR, ROOT_VALID_FOR};
use crate::pki::files::{IdentityFiles, Trust, write_identity, write_qemu};
use crate::pki::{Authority, Certified, PkiError, Role, Validity};
use quorum::id::{ClusterName, HostName, OperatorName, SiteName};
use std::path::{Path, PathBuf};

/// What can be done with the authority.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PkiVerb {
    /// Create the authority of a new cluster
    Init(InitArgs),
    /// Issue a certificate to a host or to an operator
    Issue(IssueArgs),
}

/// Arguments of `pki init`.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The authority's directory: keep it off the cluster's hosts
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    cluster: ClusterName,
    #[command(flatten)]
    shown: Shown,
}

/// Arguments of `pki issue`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("holder").required(true)))]
pub(super) struct IssueArgs {
    /// The authority's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// To this host
    #[arg(long, value_name = "HOST", group = "holder", requires = "site")]
    host: Option<HostName>,
    /// The host's site
    #[arg(long, value_name = "SITE", requires = "host")]
    site: Option<SiteName>,
    /// To this operator
    #[arg(long, value_name = "NAME", group = "holder", requires = "role")]
    operator: Option<OperatorName>,
    /// What the operator may do: viewer, operator, approver or admin
    #[arg(long, value_name = "ROLE", requires = "operator")]
    role: Option<Role>,
    /// Where to write identity.pem, ca.pem and crl.pem, and for a host the files that QEMU wants
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    shown: Shown,
}

impl PkiVerb {
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Init(args) => args.shown.format,
            Self::Issue(args) => args.shown.format,
        }
    }
}

pub(super) fn run(verb: &PkiVerb) -> Result<Outcome, Failure> {
    match verb {
        PkiVerb::Init(args) => init(args),
        PkiVerb::Issue(args) => issue(args),
    }
    .map_err(|error| Failure::ended("pki", &error, "correct it and try again"))
}

fn init(args: &InitArgs) -> Result<Outcome, PkiError> {
    let authority = Authority::create(&args.dir, &args.cluster, Validity::from_now(ROOT_VALID_FOR))?;
    let (root, _certificate) = authority.signing_root()?;
    let dir = args.dir.display();
    Ok(Outcome::done(match args.shown.format {
        Format::Text => format!("authority of {} in {dir}\nroot fingerprint {}\n", args.cluster, root.fingerprint),
        Format::Json => {
            let document = serde_json::json!({
                "api_version": crate::engine::API_VERSION, "cluster": args.cluster, "root_fingerprint": root.fingerprint,
            });
            format!("{document}\n")
        }
    }))
}

fn issue(args: &IssueArgs) -> Result<Outcome, PkiError> {
    let authority = Authority::open(&args.dir)?;
    let (holder, span) = match (&args.host, &args.site, &args.operator, args.role) {
        (Some(host), Some(site), ..) => (Holder::Host { host: host.clone(), site: site.clone() }, HOST_VALID_FOR),
        (_, _, Some(name), Some(role)) => (Holder::Operator { name: name.clone(), role }, OPERATOR_VALID_FOR),
        _ => unreachable!("the parser demands --host with --site, or --operator with --role"),
    };
    let certified = authority.issue(&holder, Validity::from_now(span))?;
    let files = write_identity(&args.out, &certified, None, &Trust::of(&authority)?)?;
    if args.host.is_some() {
        for_qemu(&args.out, &files)?;
    }
    Ok(Outcome::done(issued(&certified, args)))
}

/// QEMU's fixed names beside the identity. They are made as a whole elsewhere and moved in one by one, each atomically.
fn for_qemu(out: &Path, files: &IdentityFiles) -> Result<(), PkiError> {
    let fresh = out.join("qemu.new");
    write_qemu(&fresh, files)?;
    let failed = |source| PkiError::File { doing: "lay out for QEMU", path: out.to_owned(), source };
    for entry in std::fs::read_dir(&fresh).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        std::fs::rename(entry.path(), out.join(entry.file_name())).map_err(failed)?;
    }
    std::fs::remove_dir(&fresh).map_err(failed)
}

fn issued(certified: &Certified, args: &IssueArgs) -> String {
    let (identity, serial) = (certified.record.identity.to_string(), certified.record.serial.to_string());
    match args.shown.format {
        Format::Text => format!("{identity}\nserial {serial}, written to {}\n", args.out.display()),
        Format::Json => {
            let document = serde_json::json!({
                "api_version": crate::engine::API_VERSION, "identity": identity, "serial": serial, "out": args.out,
            });
            format!("{document}\n")
        }
    }
}
