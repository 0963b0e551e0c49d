//! The admin API for other machines: TCP with mutual TLS, certificates of the cluster's own authority.
//!
//! Contract: the certificate is judged at the handshake, again at every request, and whenever one of the files
//! changes: a revoked person's open connection ends within [`LOOK_EVERY`], and nothing is answered after it.

use super::roles::Caller;
use super::route::{self, Served};
use super::tls::Trust;
use crate::config::AgentConfig;
use crate::pki::files::IdentityFiles;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use quorum::id::ClusterName;
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// A handshake, and each request's head, may take so long.
const IDLE: Duration = Duration::from_secs(30);
/// How often the certificate files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the files looked like: enough to see a replaced one.
type Looks = Vec<Option<(SystemTime, u64)>>;

pub(super) fn serve(address: SocketAddr, config: &AgentConfig, served: Served) -> io::Result<[AbortHandle; 2]> {
    let files = IdentityFiles {
        authorities: config.tls.ca.clone(),
        certificate: config.tls.cert.clone(),
        key: config.tls.key.clone(),
        crl: config.tls.crl.clone(),
    };
    let wrong = |error: quorum::id::NameError| io::Error::new(io::ErrorKind::InvalidData, error);
    let cluster = ClusterName::new(&config.cluster).map_err(wrong)?;
    let looks = looks(&files);
    let (renewed, trust) = watch::channel(Arc::new(Trust::load(&files, &cluster)?));
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let accepting = tokio::spawn(accept(listener, served, trust)).abort_handle();
    let watching = tokio::spawn(keep_up(files, cluster, looks, renewed)).abort_handle();
    Ok([accepting, watching])
}

fn looks(files: &IdentityFiles) -> Looks {
    let paths: [Option<&PathBuf>; 4] =
        [Some(&files.authorities), Some(&files.certificate), Some(&files.key), files.crl.as_ref()];
    let look = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    paths.into_iter().flatten().map(look).collect()
}

/// Takes new files when they change; wrong ones are told to the log, and the old ones go on.
async fn keep_up(files: IdentityFiles, cluster: ClusterName, mut before: Looks, renewed: watch::Sender<Arc<Trust>>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let now = looks(&files);
        if now == before {
            continue;
        }
        match Trust::load(&files, &cluster) {
            Ok(trust) => {
                before = now;
                let _nobody_listens = renewed.send(Arc::new(trust));
            }
            // Looked at again at the next tick: the files may be in the middle of being replaced.
            Err(error) => {
                tracing::warn!(%error, "new certificates for the admin API can't be used; the old ones go on")
            }
        }
    }
}

async fn accept(listener: TcpListener, served: Served, trust: watch::Receiver<Arc<Trust>>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let (served, trust) = (served.clone(), trust.clone());
                tokio::spawn(async move {
                    if let Err(because) = converse(stream, served, trust).await {
                        tracing::warn!(%from, %because, "an admin connection was refused or ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin port could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, served: Served, mut trust: watch::Receiver<Arc<Trust>>) -> Result<(), String> {
    let server = Arc::clone(&trust.borrow_and_update().server);
    let handshake = tokio_rustls::TlsAcceptor::from(server).accept(stream);
    let tls = tokio::time::timeout(IDLE, handshake).await.map_err(|_elapsed| "no handshake in time")?;
    let tls = tls.map_err(|error| error.to_string())?;
    let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Arc<Vec<CertificateDer<'static>>> = Arc::new(shown.iter().map(|der| der.clone().into_owned()).collect());
    let _caller: Caller = trust.borrow().judge(&chain)?;
    let (asked, of) = (trust.clone(), Arc::clone(&chain));
    let service = service_fn(move |request| {
        let (served, caller) = (served.clone(), asked.borrow().judge(&of));
        async move {
            match caller {
                Ok(caller) => Ok(route::answer(&served, caller, request).await),
                Err(because) => Err(because),
            }
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(tls), service));
    loop {
        tokio::select! {
            ended = &mut serving => return ended.map_err(|error| error.to_string()),
            changed = trust.changed() => {
                changed.map_err(|_ending| "the agent ends")?;
                trust.borrow_and_update().judge(&chain)?;
            }
        }
    }
}
