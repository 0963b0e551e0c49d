//! `GET /metrics` on a TCP address of its own, for Prometheus. Read only, no identity: bind it to a trusted network.

use super::ask::{Told, ask};
use super::{Asked, ErrorDocument, person};
use crate::engine::Request;
use crate::metrics::Metrics;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

const CONNECTIONS_MAX: usize = 16;
const IDLE: Duration = Duration::from_secs(30);

/// What a scrape is answered from.
struct Scraped {
    metrics: Arc<Metrics>,
    requests: mpsc::Sender<Asked>,
    fence: fencing::Handle,
}

pub(super) fn serve(
    address: SocketAddr,
    (requests, fence): (mpsc::Sender<Asked>, fencing::Handle),
    metrics: Arc<Metrics>,
) -> std::io::Result<AbortHandle> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let scraped = Arc::new(Scraped { metrics, requests, fence });
    Ok(tokio::spawn(accept(listener, scraped)).abort_handle())
}

async fn accept(listener: TcpListener, scraped: Arc<Scraped>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _from)) => {
                let scraped = Arc::clone(&scraped);
                tokio::spawn(async move {
                    converse(stream, scraped).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the metrics' socket could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, scraped: Arc<Scraped>) {
    let service = service_fn(move |request| {
        let scraped = Arc::clone(&scraped);
        async move { Ok::<_, std::convert::Infallible>(answer(&scraped, &request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a metrics connection ended");
    }
}

async fn answer(scraped: &Scraped, request: &hyper::Request<Incoming>) -> Response<Full<Bytes>> {
    if (request.method(), request.uri().path()) != (&Method::GET, "/metrics") {
        return respond(StatusCode::NOT_FOUND, "see /metrics\n".to_owned());
    }
    match scrape(scraped).await {
        Ok(text) => respond(StatusCode::OK, text),
        Err(error) => respond(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error.error.text)),
    }
}

/// A scrape changes nothing, so it is asked in the agent's own name.
async fn scrape(scraped: &Scraped) -> Result<String, ErrorDocument> {
    let by = person::local(rustix::process::geteuid().as_raw());
    scraped.metrics.want();
    let Told::Status(status) = ask(&scraped.requests, by, Request::Status).await? else {
        return Ok(scraped.metrics.render());
    };
    scraped.metrics.update(&status);
    scraped.metrics.update_fencing(&scraped.fence.status());
    Ok(scraped.metrics.render())
}

fn respond(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}
