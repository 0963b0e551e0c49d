//! Tells people by their own means: each new attention item is handed to a program, or posted to an address.
//!
//! Every agent may be configured to; the leader tells, and where no leader is known every agent does: told twice is better
//! than told never. What can't be delivered is tried again while the item stands. Nothing else depends on it.

use crate::admin::Asked;
use crate::command::{Invocation, Program};
use crate::config::NotifyConfig;
use crate::engine::{Answer, AttentionLine, Request, StatusDocument};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use quorum::id::HostName;
use quorum::ledger::{Person, PersonKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Version of the contract, said in every call.
const API_VERSION: u32 = 1;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one delivery may take.
const DELIVERY: Duration = Duration::from_secs(10);
/// A delivery that failed is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// An item that was away for this long is news when it is back.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// An item that was told, or is to be told again.
struct Told {
    seen: Instant,
    again: Option<Instant>,
}

/// Watches the attention list until the agent ends.
pub(super) fn start(config: NotifyConfig, host: HostName, ask: mpsc::Sender<Asked>) {
    tokio::spawn(async move {
        let mut told: BTreeMap<String, Told> = BTreeMap::new();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Some(status) = status(&ask).await {
                tell(&config, &host, &status, &mut told).await;
            }
        }
    });
}

async fn status(ask: &mpsc::Sender<Asked>) -> Option<Box<StatusDocument>> {
    let (answer, answered) = oneshot::channel();
    let by = Person { name: "notify".into(), key: PersonKey::Local(0) };
    ask.send(Asked { by, request: Request::Status, answer }).await.ok()?;
    match tokio::time::timeout(DELIVERY, answered).await {
        Ok(Ok(Answer::Status(status))) => Some(status),
        _ => None,
    }
}

async fn tell(config: &NotifyConfig, host: &HostName, status: &StatusDocument, told: &mut BTreeMap<String, Told>) {
    let now = Instant::now();
    let leads = status.quorum.leader.as_ref().is_none_or(|leader| leader == host.as_str());
    for item in &status.attention {
        let known = told.entry(key(item)).or_insert(Told { seen: now, again: Some(now) });
        known.seen = now;
        // Others' items are remembered as told: whoever becomes the leader doesn't tell everything anew.
        if !leads {
            known.again = None;
        }
        if known.again.is_none_or(|again| now < again) {
            continue;
        }
        let message = json!({ "api_version": API_VERSION, "verb": "notify", "cluster": status.cluster, "host": host,
            "item": { "code": item.code, "text": item.text, "next": item.next } });
        known.again = match deliver(config, &message).await {
            Ok(()) => None,
            Err(because) => {
                tracing::warn!(code = item.code, %because, "an attention item was not delivered");
                Some(now + AGAIN)
            }
        };
    }
    told.retain(|_, known| now.saturating_duration_since(known.seen) < FORGOTTEN);
}

/// What makes an item the same one: figures in its text change from look to look.
fn key(item: &AttentionLine) -> String {
    let text: String = item.text.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
    format!("{} {text}", item.code)
}

async fn deliver(config: &NotifyConfig, message: &Value) -> Result<(), String> {
    if let Some(program) = &config.command {
        let program = Program::find(program).map_err(|error| error.to_string())?;
        let call = Invocation::new(&program, DELIVERY).arg("notify").stdin(message.to_string());
        let outcome = call.run().await.map_err(|error| error.to_string())?;
        if !outcome.is_success() {
            return Err(outcome.summary());
        }
    }
    if let Some(webhook) = &config.webhook {
        let posted = tokio::time::timeout(DELIVERY, post(webhook, message)).await;
        posted.map_err(|_| format!("{webhook} didn't answer within {DELIVERY:?}"))??;
    }
    Ok(())
}

/// Posts to a plain HTTP address, such as a relay on this host.
async fn post(webhook: &str, message: &Value) -> Result<(), String> {
    let uri: hyper::Uri = webhook.parse().map_err(|error| format!("{webhook}: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("{webhook} names no host"))?;
    let told = |error: &dyn std::fmt::Display| format!("{webhook}: {error}");
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await.map_err(|error| told(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| told(&error))?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(hyper::header::HOST, host)
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(message.to_string())))
        .map_err(|error| told(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| told(&error));
    connection.abort();
    let status = answer?.status();
    if status.is_success() { Ok(()) } else { Err(format!("{webhook}: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> AttentionLine {
        AttentionLine { code: "data-held", text: text.into(), next: String::new() }
    }

    #[test]
    fn an_item_whose_figures_change_is_the_same_item() {
        assert_eq!(key(&item("erp lacks the last 4.2 s")), key(&item("erp lacks the last 17.9 s")));
        assert_ne!(key(&item("erp lacks the last 4.2 s")), key(&item("crm lacks the last 4.2 s")));
    }

    #[tokio::test]
    async fn an_item_is_handed_to_the_program_as_documented() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("tell");
        let out = folder.path().join("told");
        std::fs::write(&program, format!("#!/bin/sh\n[ \"$1\" = notify ] && cat > {}\n", out.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let config = NotifyConfig { command: Some(program.display().to_string()), webhook: None };
        deliver(&config, &json!({ "verb": "notify", "item": { "code": "brake" } })).await.unwrap();
        let told: Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
        assert_eq!(told["item"]["code"], "brake");
        let broken = NotifyConfig { command: Some("/nonexistent/tell".into()), webhook: None };
        assert!(deliver(&broken, &json!({})).await.is_err());
    }
}
