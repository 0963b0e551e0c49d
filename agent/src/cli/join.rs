//! `join` and `pki serve`: the two ends by which a new host obtains its certificate.
//!
//! The new host makes its own key, which never travels. It trusts whoever holds a certificate of the one root whose
//! fingerprint its token carries; the authority trusts whoever has the token, once. One exchange a connection, a line
//! of JSON each way, bounded in size and time.

use super::options::{Format, Shown};
use super::{Failure, Outcome, pki};
use crate::admin::Exit;
use crate::engine::API_VERSION;
use crate::pki::authority::{HOST_VALID_FOR, Holder};
use crate::pki::files::{Material, Trust, write_joined};
use crate::pki::token::{JoinReply, bootstrap_client, bootstrap_server, make_request};
use crate::pki::{Authority, JoinToken, PkiError, Validity, identity};
use quorum::id::{HostName, SiteName};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One exchange may take so long.
const PATIENCE: Duration = Duration::from_secs(15);
/// A request or a reply is far smaller.
const LINE_BYTES_MAX: u64 = 256 << 10;
/// The authority's own certificate for this conversation outlives no day.
const SERVE_VALID_FOR: Duration = Duration::from_secs(86_400);

/// Arguments of `join`.
#[derive(Debug, clap::Args)]
pub(super) struct JoinArgs {
    /// The token that `pki token` printed; `-` reads it from standard input
    token: String,
    /// Where `pki serve` listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    from: String,
    /// Where to write identity.pem, ca.pem, crl.pem and the files that QEMU wants
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinAsked {
    token: String,
    request_pem: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JoinTold {
    Certificate(JoinReply),
    Refused(String),
}

fn broken(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Unreachable, "join-failed", text, "is `antipode pki serve` running there, and the token fresh?")
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Error, "no-runtime", error.to_string(), ""))
}

pub(super) fn run(args: &JoinArgs) -> Result<Outcome, Failure> {
    let text = match args.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| broken(error.to_string()))?,
        given => given.to_owned(),
    };
    let token: JoinToken = text.trim().parse().map_err(pki::failed)?;
    let (key_pem, request_pem) = make_request().map_err(pki::failed)?;
    let asked = async {
        let exchanged = tokio::time::timeout(PATIENCE, ask(&args.from, &token, request_pem)).await;
        exchanged.map_err(|_elapsed| broken(format!("{} did not answer in time", args.from)))?
    };
    let reply = runtime()?.block_on(asked)?;
    let told = keep(&reply, &key_pem, &args.out).map_err(pki::failed)?;
    Ok(Outcome::done(match args.shown.format {
        Format::Text => format!("{told}\nwritten to {}\n", args.out.display()),
        Format::Json => {
            let out = args.out.display().to_string();
            format!("{}\n", json!({"api_version": API_VERSION, "identity": told, "out": out}))
        }
    }))
}

async fn ask(from: &str, token: &JoinToken, request_pem: String) -> Result<JoinReply, Failure> {
    let client = Arc::new(bootstrap_client(token).map_err(pki::failed)?);
    let failed = |error: std::io::Error| broken(format!("{from}: {error}"));
    let stream = TcpStream::connect(from).await.map_err(failed)?;
    let server = ServerName::IpAddress(stream.peer_addr().map_err(failed)?.ip().into());
    let mut tls = tokio_rustls::TlsConnector::from(client).connect(server, stream).await.map_err(failed)?;
    let asked = JoinAsked { token: token.to_string(), request_pem };
    send(&mut tls, &asked).await.map_err(failed)?;
    match receive::<JoinTold, _>(&mut tls).await.map_err(failed)? {
        JoinTold::Certificate(reply) => Ok(reply),
        JoinTold::Refused(because) => {
            let next = "antipode pki token makes a new one";
            Err(Failure::new(Exit::Refused, "join-refused", because, next))
        }
    }
}

/// Writes what the authority sent, with the key that was made here.
fn keep(reply: &JoinReply, key_pem: &str, out: &Path) -> Result<String, PkiError> {
    let trust = Trust { authorities_pem: reply.authorities_pem.clone(), crl_pem: reply.crl_pem.clone() };
    let leaf = CertificateDer::from_pem_slice(reply.certificate_pem.as_bytes())
        .map_err(|_| identity::IdentityError::NotACertificate)?;
    let identity = identity::from_certificate(&leaf)?;
    let files = write_joined(out, &reply.certificate_pem, (key_pem, &trust))?;
    pki::for_qemu(out, &files)?;
    Ok(identity.to_string())
}

async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

async fn receive<T, S>(from: &mut S) -> std::io::Result<T>
where
    T: serde::de::DeserializeOwned,
    S: AsyncRead + Unpin,
{
    let mut line = Vec::new();
    BufReader::new(from.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line).await?;
    serde_json::from_slice(&line).map_err(std::io::Error::from)
}

/// On standard error, whether or not somebody still reads it.
fn say(text: &str) {
    let _unread = writeln!(std::io::stderr(), "antipode: {text}");
}

/// `pki serve`: answers joining hosts, one after the other, until interrupted.
pub(super) fn serve(dir: &Path, listen: SocketAddr) -> Result<Outcome, Failure> {
    let authority = Authority::open(dir).map_err(pki::failed)?;
    let server = Arc::new(own_server(&authority).map_err(pki::failed)?);
    runtime()?.block_on(async {
        let failed = |error: std::io::Error| Failure::new(Exit::Error, "listen", error.to_string(), "another address");
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        say(&format!("joining hosts are answered at {}", listener.local_addr().map_err(failed)?));
        loop {
            let (stream, from) = listener.accept().await.map_err(failed)?;
            let answered = tokio::time::timeout(PATIENCE, answer(&authority, Arc::clone(&server), stream)).await;
            match answered {
                Ok(Ok(told)) => say(&format!("{from}: {told}")),
                Ok(Err(error)) => say(&format!("{from}: {error}")),
                Err(_elapsed) => say(&format!("{from}: took too long")),
            }
        }
    })
}

/// A certificate for this conversation only: only hosts hand out certificates, so the authority is one for a day.
fn own_server(authority: &Authority) -> Result<rustls::ServerConfig, PkiError> {
    let name = HostName::new("pki-serve").expect("a fixed name is a good one");
    let site = SiteName::new("pki-serve").expect("a fixed name is a good one");
    let own = authority.issue(&Holder::Host { host: name, site }, Validity::from_now(SERVE_VALID_FOR))?;
    let key = own.key_pem.unwrap_or_default();
    let unreadable = |_| PkiError::from(identity::IdentityError::NotACertificate);
    let all = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(unreadable);
    bootstrap_server(Material {
        chain: all(&own.certificate_pem)?,
        key: PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(unreadable)?,
        roots: all(&authority.bundle_pem()?)?,
        crls: None,
    })
}

async fn answer(
    authority: &Authority,
    server: Arc<rustls::ServerConfig>,
    stream: TcpStream,
) -> Result<String, std::io::Error> {
    let mut tls = tokio_rustls::TlsAcceptor::from(server).accept(stream).await?;
    let asked: JoinAsked = receive(&mut tls).await?;
    let redeemed = asked.token.parse::<JoinToken>().and_then(|token| {
        let certified = authority.redeem(&token, &asked.request_pem, Validity::from_now(HOST_VALID_FOR))?;
        Ok((certified.record.identity.to_string(), authority.join_reply(&certified)?))
    });
    let (told, message) = match redeemed {
        Ok((identity, reply)) => (format!("certificate for {identity}"), JoinTold::Certificate(reply)),
        Err(error) => (format!("refused: {error}"), JoinTold::Refused(format!("failed to {error}"))),
    };
    send(&mut tls, &message).await?;
    tls.shutdown().await?;
    Ok(told)
}
