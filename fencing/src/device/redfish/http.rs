//! One HTTP/1.1 connection to a BMC: requests one after another, answers of bounded size, troubles in our words.
//!
//! Not here: logging in and what is asked (`session`, `system`); limits in time (the caller drops the future).

use super::super::BoxFuture;
use super::tls::{Trust, client_config};
use crate::trouble::Trouble;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// Largest answer that is read; a system's description has some ten kilobytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A byte stream to a BMC.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes streams to one BMC.
pub trait Connect: Send + Sync {
    /// A new stream, checked as far as its kind can be.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Trouble>>;
}

/// TCP with TLS.
#[derive(Clone, Debug)]
pub struct TlsConnect {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whom to trust.
    pub trust: Trust,
}

impl Connect for TlsConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Trouble>> {
        Box::pin(async {
            // Read anew for each connection, so that a replaced CA file needs no restart.
            let config = client_config(&self.trust).map_err(|because| Trouble::Unusable { because })?;
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
            let tcp = tcp.map_err(|error| Trouble::Unreachable { because: error.to_string() })?;
            let _ = tcp.set_nodelay(true);
            let stream = secure(Arc::new(config), &self.host, tcp).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// TLS over `stream`, towards `host`.
///
/// # Errors
/// [`Trouble::Untrusted`] for another certificate than expected; nothing was sent then.
pub async fn secure<S: Stream + 'static>(
    config: Arc<rustls::ClientConfig>,
    host: &str,
    stream: S,
) -> Result<tokio_rustls::client::TlsStream<S>, Trouble> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name =
        name.map_err(|error| Trouble::Unusable { because: format!("{host:?} can't be a server's name: {error}") })?;
    TlsConnector::from(config).connect(name, stream).await.map_err(tls_trouble)
}

fn tls_trouble(error: std::io::Error) -> Trouble {
    let because = error.to_string();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
            Trouble::Untrusted { because: other.to_string() }
        }
        Some(rustls::Error::InvalidCertificate(_)) => Trouble::Untrusted { because },
        Some(_) => Trouble::Garbled { because: format!("TLS: {because}") },
        None => Trouble::BrokeOff { because: format!("in the TLS handshake: {because}") },
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, if that was JSON.
    pub body: Option<Value>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Lost {
    /// It wasn't sent: the connection had been closed before.
    Unsent,
    /// It may or may not have been carried out.
    Trouble(Trouble),
}

/// A connection. Dropping it closes it.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn open(connect: &dyn Connect) -> Result<Self, Trouble> {
        let stream = connect.connect().await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(http_trouble)?;
        let driver = tokio::spawn(async move {
            // Its errors reach the request that is under way.
            let _ = connection.await;
        });
        Ok(Self { sender, driver: driver.abort_handle() })
    }

    /// Whether it can take another request.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends `request` and takes its answer.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Lost> {
        if self.sender.ready().await.is_err() {
            return Err(Lost::Unsent);
        }
        let answer = self.sender.try_send_request(request).await.map_err(|error| {
            if error.message().is_some() { Lost::Unsent } else { Lost::Trouble(http_trouble(error.into_error())) }
        })?;
        let (parts, mut body) = answer.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Lost::Trouble(http_trouble(error)))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if bytes.len() > BODY_BYTES_MAX {
                let because = format!("its answer has more than {BODY_BYTES_MAX} bytes");
                return Err(Lost::Trouble(Trouble::Garbled { because }));
            }
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body: serde_json::from_slice(&bytes).ok() })
    }
}

fn http_trouble(error: hyper::Error) -> Trouble {
    let mut because = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        because = format!("{because}: {source}");
    }
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        Trouble::Garbled { because: format!("HTTP: {because}") }
    } else {
        Trouble::BrokeOff { because }
    }
}
