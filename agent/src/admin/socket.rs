//! The admin socket: a Unix socket in the run directory, HTTP/1.1 on it.
//!
//! Whoever may write to the socket is an administrator of this host: the file's mode (owner and group) decides.

use super::roles::Caller;
use super::route::{self, Served};
use super::{Asked, metrics, person, remote};
use crate::config::AgentConfig;
use crate::metrics::Metrics;
use crate::pki::Role;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

/// The socket's name in the run directory.
pub const SOCKET_NAME: &str = "admin.sock";

/// Owner and group; a package gives it the group of the operators.
const MODE: u32 = 0o660;

/// Connections at a time; more wait in the kernel's queue. A person needs one, a dashboard a few.
const CONNECTIONS_MAX: usize = 64;

/// A connection that sends no request for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// A running admin API. Dropping it closes the socket and removes its file.
#[derive(Debug)]
pub struct Admin {
    socket: PathBuf,
    accepting: Vec<AbortHandle>,
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.accepting.iter().for_each(AbortHandle::abort);
        // Nobody can be told; the next start replaces a socket that nobody answers at.
        let _gone = std::fs::remove_file(&self.socket);
    }
}

/// Opens the admin socket, and the addresses for other machines and for metrics if the configuration has them, and
/// serves them until the returned value is dropped. Must be called within a tokio runtime.
///
/// # Errors
/// What the operating system says; [`io::ErrorKind::AddrInUse`] if another agent answers at the socket or something
/// else at an address; [`io::ErrorKind::InvalidData`] if the certificates can't be used.
pub fn serve(
    config: &AgentConfig,
    requests: mpsc::Sender<Asked>,
    (fence, shown): (fencing::Handle, Arc<Metrics>),
) -> io::Result<Admin> {
    let socket = config.run_dir.join(SOCKET_NAME);
    clear(&socket)?;
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(MODE))?;
    let (data_dir, host) = (config.data_dir.clone(), config.host.to_string());
    let served = Served { requests: requests.clone(), data_dir, host, fence: fence.clone() };
    let accepting = tokio::spawn(accept(listener, served.clone())).abort_handle();
    let mut admin = Admin { socket, accepting: vec![accepting] };
    if let Some(address) = config.admin {
        admin.accepting.extend(remote::serve(address, config, served)?);
    }
    if let Some(address) = config.metrics {
        admin.accepting.push(metrics::serve(address, (requests, fence), shown)?);
    }
    Ok(admin)
}

/// Removes a socket that an ended agent left; one that is answered is another agent's.
fn clear(socket: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_answered) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers at the admin socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_nobody) => std::fs::remove_file(socket),
    }
}

async fn accept(listener: UnixListener, served: Served) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _unnamed)) => {
                let served = served.clone();
                tokio::spawn(async move {
                    converse(stream, served).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others must get the chance to give some back.
                tracing::warn!(%error, "the admin socket could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, served: Served) {
    let Ok(peer) = stream.peer_cred() else { return };
    let caller = Caller { person: person::local(peer.uid()), role: Role::Admin };
    let service = service_fn(move |request| {
        let (served, caller) = (served.clone(), caller.clone());
        async move { Ok::<_, std::convert::Infallible>(route::answer(&served, caller, request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "an admin connection ended");
    }
}
