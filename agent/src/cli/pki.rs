//! `pki`: the cluster's certificate authority, a directory of files. Needs no agent.

use super::options::{Format, Shown};
use super::{Failure, Outcome};
use crate::engine::API_VERSION;
use crate::pki::authority::{HOST_VALID_FOR, Holder, OPERATOR_VALID_FOR, ROOT_VALID_FOR};
use crate::pki::files::{IdentityFiles, Trust, write_identity, write_qemu};
use crate::pki::identity::KeyFingerprint;
use crate::pki::token::TOKEN_VALID_FOR;
use crate::pki::{Authority, Certified, Identity, PkiError, RevocationReason, Role, Serial, Validity};
use quorum::id::{ClusterName, HostName, OperatorName, SiteName};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What can be done with the authority.
#[derive(Debug, clap::Subcommand)]
pub(super) enum PkiVerb {
    /// Create the authority of a new cluster
    Init(InitArgs),
    /// Issue a certificate to a host or to a person
    Issue(IssueArgs),
    /// Issue a newer certificate to somebody who has one
    Renew(RenewArgs),
    /// Revoke a certificate, or all that a host or a person has
    Revoke(RevokeArgs),
    /// Show the roots and what was issued, with what is left of each
    Show(AtDir),
    /// Put a new root in the place of the old one, in three steps
    RotateCa(RotateArgs),
    /// Make a one-time token with which a new host obtains its certificate
    Token(TokenArgs),
    /// Answer joining hosts until interrupted
    Serve(ServeArgs),
}

/// Where the authority is, and how the answer is shown.
#[derive(Debug, clap::Args)]
pub(super) struct AtDir {
    /// The authority's directory: keep it off the cluster's hosts
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    shown: Shown,
}

/// Arguments of `pki init`.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    cluster: ClusterName,
    #[command(flatten)]
    at: AtDir,
}

/// A host or a person that has a certificate.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("holder").required(true)))]
struct Whose {
    /// This host
    #[arg(long = "host", value_name = "HOST", group = "holder")]
    named_host: Option<HostName>,
    /// This person
    #[arg(long, value_name = "NAME", group = "holder")]
    person: Option<OperatorName>,
}

/// Arguments of `pki issue`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("holder").required(true)))]
pub(super) struct IssueArgs {
    /// To this host
    #[arg(long, value_name = "HOST", group = "holder", requires = "site")]
    host: Option<HostName>,
    /// The host's site
    #[arg(long, value_name = "SITE", requires = "host")]
    site: Option<SiteName>,
    /// To this person
    #[arg(long, alias = "operator", value_name = "NAME", group = "holder", requires = "role")]
    person: Option<OperatorName>,
    /// What the person may do: viewer, operator, approver or admin
    #[arg(long, value_name = "ROLE", requires = "person")]
    role: Option<Role>,
    /// Where to write identity.pem, ca.pem and crl.pem, and for a host the files that QEMU wants
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    at: AtDir,
}

/// Arguments of `pki renew`.
#[derive(Debug, clap::Args)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    whose: Whose,
    /// Where to write the new files
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    at: AtDir,
}

/// Arguments of `pki revoke`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub(super) struct RevokeArgs {
    /// The certificate with this serial number
    #[arg(long, value_name = "SERIAL", group = "which")]
    serial: Option<Serial>,
    /// All of this host
    #[arg(long = "host", value_name = "HOST", group = "which")]
    named_host: Option<HostName>,
    /// All of this person
    #[arg(long, value_name = "NAME", group = "which")]
    person: Option<OperatorName>,
    /// Somebody else may have the key
    #[arg(long)]
    compromised: bool,
    #[command(flatten)]
    at: AtDir,
}

/// Arguments of `pki rotate-ca`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("step").required(true)))]
pub(super) struct RotateArgs {
    /// First: make a new root; hand the new ca.pem and crl.pem to every host and person
    #[arg(long, group = "step")]
    begin: bool,
    /// Then, when all have it: let this root sign; renew every certificate
    #[arg(long, value_name = "ROOT", group = "step")]
    promote: Option<u32>,
    /// Last, when nobody uses the old one: trust it no longer
    #[arg(long, value_name = "ROOT", group = "step")]
    retire: Option<u32>,
    #[command(flatten)]
    at: AtDir,
}

/// Arguments of `pki token`.
#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    /// For this host
    #[arg(long = "host", value_name = "HOST")]
    named_host: HostName,
    /// At this site
    #[arg(long, value_name = "SITE")]
    site: SiteName,
    #[command(flatten)]
    at: AtDir,
}

/// Arguments of `pki serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The authority's directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(verb: &PkiVerb) -> Result<Outcome, Failure> {
    match verb {
        PkiVerb::Init(args) => init(args),
        PkiVerb::Issue(args) => issue(args),
        PkiVerb::Renew(args) => renew(args),
        PkiVerb::Revoke(args) => revoke(args),
        PkiVerb::Show(at) => show(at),
        PkiVerb::RotateCa(args) => rotate(args),
        PkiVerb::Token(args) => token(args),
        PkiVerb::Serve(args) => return super::join::serve(&args.dir, args.listen),
    }
    .map_err(failed)
}

pub(super) fn failed(error: PkiError) -> Failure {
    Failure::ended("pki", &error, "correct it and try again")
}

/// The text, or the document with its version.
fn outcome(shown: Shown, text: String, mut document: Value) -> Outcome {
    Outcome::done(match shown.format {
        Format::Text => text,
        Format::Json => {
            document["api_version"] = API_VERSION.into();
            format!("{document}\n")
        }
    })
}

fn init(args: &InitArgs) -> Result<Outcome, PkiError> {
    let authority = Authority::create(&args.at.dir, &args.cluster, Validity::from_now(ROOT_VALID_FOR))?;
    let (root, _certificate) = authority.signing_root()?;
    let (dir, cluster, fingerprint) = (args.at.dir.display(), &args.cluster, &root.fingerprint);
    let text = format!("authority of {cluster} in {dir}\nroot fingerprint {fingerprint}\n");
    Ok(outcome(args.at.shown, text, json!({"cluster": cluster, "root_fingerprint": fingerprint})))
}

fn issue(args: &IssueArgs) -> Result<Outcome, PkiError> {
    let authority = Authority::open(&args.at.dir)?;
    let (holder, span) = match (&args.host, &args.site, &args.person, args.role) {
        (Some(host), Some(site), ..) => (Holder::Host { host: host.clone(), site: site.clone() }, HOST_VALID_FOR),
        (_, _, Some(name), Some(role)) => (Holder::Operator { name: name.clone(), role }, OPERATOR_VALID_FOR),
        _ => unreachable!("the parser demands --host with --site, or --person with --role"),
    };
    let certified = authority.issue(&holder, Validity::from_now(span))?;
    hand_out(&authority, &certified, (&args.out, args.at.shown))
}

fn renew(args: &RenewArgs) -> Result<Outcome, PkiError> {
    let authority = Authority::open(&args.at.dir)?;
    let (identity, span) = identity(&authority, &args.whose.named_host, &args.whose.person);
    let certified = authority.renew(&identity, Validity::from_now(span))?;
    hand_out(&authority, &certified, (&args.out, args.at.shown))
}

/// Somebody to look for: site, role and key are those of the newest certificate.
fn identity(
    authority: &Authority,
    host: &Option<HostName>,
    person: &Option<OperatorName>,
) -> (Identity, std::time::Duration) {
    let cluster = authority.cluster().clone();
    match (host, person) {
        (Some(host), _) => {
            let site = SiteName::new("any").expect("a fixed name is a good one");
            (Identity::Host { cluster, host: host.clone(), site }, HOST_VALID_FOR)
        }
        (None, Some(name)) => {
            let (name, role, key_fingerprint) = (name.clone(), Role::Viewer, KeyFingerprint([0; 32]));
            (Identity::Operator { cluster, name, role, key_fingerprint }, OPERATOR_VALID_FOR)
        }
        (None, None) => unreachable!("the parser demands one"),
    }
}

/// Writes the certificate's files and says what it is.
fn hand_out(authority: &Authority, certified: &Certified, (out, shown): (&Path, Shown)) -> Result<Outcome, PkiError> {
    let files = write_identity(out, certified, None, &Trust::of(authority)?)?;
    if matches!(certified.record.identity, Identity::Host { .. }) {
        for_qemu(out, &files)?;
    }
    let (identity, serial) = (certified.record.identity.to_string(), certified.record.serial.to_string());
    let text = format!("{identity}\nserial {serial}, written to {}\n", out.display());
    let (not_after, out) = (certified.record.not_after, out.display().to_string());
    Ok(outcome(shown, text, json!({"identity": identity, "serial": serial, "not_after": not_after, "out": out})))
}

/// QEMU's fixed names beside the identity. They are made as a whole elsewhere and moved in one by one, each atomically.
pub(super) fn for_qemu(out: &Path, files: &IdentityFiles) -> Result<(), PkiError> {
    let fresh = out.join("qemu.new");
    write_qemu(&fresh, files)?;
    let failed = |source| PkiError::File { doing: "lay out for QEMU", path: out.to_owned(), source };
    for entry in std::fs::read_dir(&fresh).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        std::fs::rename(entry.path(), out.join(entry.file_name())).map_err(failed)?;
    }
    std::fs::remove_dir(&fresh).map_err(failed)
}

fn revoke(args: &RevokeArgs) -> Result<Outcome, PkiError> {
    let authority = Authority::open(&args.at.dir)?;
    let reason =
        if args.compromised { RevocationReason::KeyCompromise } else { RevocationReason::CessationOfOperation };
    let serials = match args.serial {
        Some(serial) => authority.revoke(serial, reason).map(|()| vec![serial])?,
        None => authority.revoke_holder(&identity(&authority, &args.named_host, &args.person).0, reason)?,
    };
    let serials: Vec<String> = serials.iter().map(ToString::to_string).collect();
    let crl = args.at.dir.join("crl.pem").display().to_string();
    let text = format!("revoked {}\nnext: copy {crl} to every host\n", or_none(&serials.join(", ")));
    Ok(outcome(args.at.shown, text, json!({"revoked": serials, "crl": crl})))
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "nothing: none was in force" } else { text }
}

fn show(at: &AtDir) -> Result<Outcome, PkiError> {
    let authority = Authority::open(&at.dir)?;
    let now = Validity::from_now(std::time::Duration::ZERO).not_after;
    let days = |until: i64| (until - now).div_euclid(86_400);
    let (mut roots, mut issued) = (Vec::new(), Vec::new());
    let mut text = format!("authority of {}\n", authority.cluster());
    for root in authority.generations()? {
        let standing = serde_json::to_value(root.standing).unwrap_or_default();
        // Writing to a String cannot fail.
        let word = standing.as_str().unwrap_or_default();
        let _ = writeln!(text, "root {} {word}, {} days left, {}", root.number, days(root.not_after), root.fingerprint);
        roots.push(json!({
            "number": root.number, "standing": standing, "fingerprint": root.fingerprint,
            "not_after": root.not_after, "days_left": days(root.not_after),
        }));
    }
    for record in authority.issued()? {
        let state = match record.revoked {
            Some(_) => "revoked",
            None if record.not_after < now => "expired",
            None => "in-force",
        };
        let left = days(record.not_after);
        let _ =
            writeln!(text, "{} {state}, {left} days left, root {}: {}", record.serial, record.root, record.identity);
        issued.push(json!({
            "serial": record.serial, "identity": record.identity.to_string(), "state": state, "root": record.root,
            "key_fingerprint": record.key_fingerprint, "not_after": record.not_after, "days_left": left,
        }));
    }
    Ok(outcome(at.shown, text, json!({"cluster": authority.cluster(), "roots": roots, "issued": issued})))
}

fn rotate(args: &RotateArgs) -> Result<Outcome, PkiError> {
    let authority = Authority::open(&args.at.dir)?;
    let dir = args.at.dir.display();
    let (root, next) = match (args.promote, args.retire) {
        (Some(root), _) => {
            authority.promote(root)?;
            (root, format!("renew every certificate (antipode pki renew --dir {dir}), then rotate-ca --retire the old"))
        }
        (None, Some(root)) => {
            authority.retire(root)?;
            (root, format!("copy {dir}/ca.pem and {dir}/crl.pem to every host and person"))
        }
        (None, None) => {
            let root = authority.rotate(Validity::from_now(ROOT_VALID_FOR))?;
            (root, format!("copy {dir}/ca.pem and {dir}/crl.pem to all, then rotate-ca --promote {root}"))
        }
    };
    let text = format!("root {root}\nnext: {next}\n");
    Ok(outcome(args.at.shown, text, json!({"root": root, "next": next})))
}

fn token(args: &TokenArgs) -> Result<Outcome, PkiError> {
    let authority = Authority::open(&args.at.dir)?;
    let token = authority.mint_token(&args.named_host, &args.site, TOKEN_VALID_FOR)?;
    let seconds = TOKEN_VALID_FOR.as_secs();
    let text = format!("{token}\n");
    let document = json!({"token": token.to_string(), "host": args.named_host, "valid_seconds": seconds});
    Ok(outcome(args.at.shown, text, document))
}
