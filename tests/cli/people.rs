//! The admin API from other machines: who may ask what, and who no longer.

use super::lab::{LIMIT, Lab, PERSONS, wait_for};
use antipode::admin::{ApplyAsked, FenceAsked, MoveAsked, OrderAsked};
use antipode::engine::{FenceAct, Matter, Order, Scope};
use antipode::pki::authority::Holder;
use antipode::pki::files::{IdentityFiles, Trust, write_identity};
use antipode::pki::{Authority, Role, Validity, token};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;

type Sender = SendRequest<Full<bytes::Bytes>>;

/// A connection as this person; the handle ends with it.
async fn dial(lab: &Lab, identity: &str) -> std::io::Result<(Sender, tokio::task::JoinHandle<()>)> {
    let files = IdentityFiles::in_directory(&lab.path(identity));
    let tls = antipode::admin::connect(&format!("127.0.0.1:{}", lab.admin_port), &files).await?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(std::io::Error::other)?;
    // How it ends is seen by the next request.
    let up = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, up))
}

async fn connect(lab: &Lab, identity: &str) -> std::io::Result<Sender> {
    Ok(dial(lab, identity).await?.0)
}

async fn ask(sender: &mut Sender, line: &str, body: Vec<u8>) -> Result<StatusCode, hyper::Error> {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let request = Request::builder().method(method).uri(path).header("host", "antipode");
    let request = request.body(Full::new(body.into())).expect("a request");
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn order(name: &str) -> Order {
    let host = || "nobody".parse().expect("a name");
    let group = || "nothing".parse().expect("a name");
    match name {
        "freeze" => Order::Freeze { scope: Scope::Group(group()), span_ms: 1, hold_activation: false },
        "thaw" => Order::Thaw { freeze: 7 },
        "maintenance" => Order::Maintenance { scope: Scope::Host(host()), span_ms: 1 },
        "end-maintenance" => Order::EndMaintenance { scope: Scope::Host(host()) },
        "cancel-plan" => Order::CancelPlan { plan: 7 },
        "retry-plan" => Order::RetryPlan { plan: 7 },
        "pin" => Order::Pin { group: group() },
        "unpin" => Order::Unpin { group: group() },
        "approve" => Order::Approve { matter: Matter::Plan(7) },
        "deny" => Order::Deny { matter: Matter::Plan(7) },
        "skip-step" => Order::SkipStep { plan: 7 },
        "release-brake" => Order::ReleaseBrake,
        "readmit-host" => Order::ReadmitHost { host: host() },
        "remove-host" => Order::RemoveHost { host: host() },
        "remove-group" => Order::RemoveGroup { group: group() },
        other => panic!("say what a request for {other} looks like"),
    }
}

/// The request of a line of the table: what to send, and with which body.
fn request(line: &str) -> (String, Vec<u8>) {
    let mut words = line.split(' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
    let reason = String::new;
    let body = match path {
        "/v1/apply" => serde_json::to_vec(&ApplyAsked { source: String::new(), dry_run: true, reason: reason() }),
        "/v1/move" => serde_json::to_vec(&MoveAsked {
            kind: "failover".into(),
            group: "nothing".parse().expect("a name"),
            to: None,
            reason: reason(),
            dry_run: true,
            accept_loss: false,
        }),
        "/v1/fence/test" => Ok(b"{}".to_vec()),
        "/v1/fence/order" => serde_json::to_vec(&FenceAsked {
            scope: Scope::Host("nobody".parse().expect("a name")),
            act: match words.next().expect("which") {
                "run" => FenceAct::Run,
                "override" => FenceAct::Override { at_once: false, span_ms: None },
                _ => FenceAct::Release,
            },
            reason: "test".into(),
            confirm: "nobody".into(),
            dry_run: false,
        }),
        "/v1/order" => serde_json::to_vec(&OrderAsked { order: order(words.next().expect("which")), reason: reason() }),
        _ => Ok(Vec::new()),
    };
    (format!("{method} {}", path.replace('*', "x")), body.expect("plain data"))
}

/// The committed table of roles, held against a running agent: every request, as every role.
#[test]
fn every_request_is_permitted_to_those_of_the_table_and_to_nobody_else() {
    let lab = Lab::start();
    let table = include_str!("../../agent/testdata/admin/roles.txt");
    let mut wrong = Vec::new();
    let mut asked = 0;
    runtime().block_on(async {
        for (column, (name, role)) in PERSONS.iter().enumerate() {
            let mut sender = connect(&lab, name).await.expect("a connection");
            for row in table.lines().skip(1) {
                let mut cells = row.split('\t');
                let (line, body) = request(cells.next().expect("a request"));
                let may = cells.nth(column).expect("a mark") == "yes";
                let status = ask(&mut sender, &line, body).await.expect("an answer");
                asked += 1;
                if may == (status == StatusCode::FORBIDDEN) {
                    wrong.push(format!("{row:?} as {role}: {status}"));
                }
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked >= 4 * 20, "the table is whole: {asked}");
}

#[test]
fn a_person_is_named_with_role_and_key_and_a_weak_role_is_refused() {
    let lab = Lab::start();
    let seen = lab.ask_as("vera", &["status", "-o", "json"]);
    assert_eq!((seen.exit, seen.json()["seen_by"].as_str()), (0, Some("tk-1")), "{seen:?}");
    let refused = lab.ask_as("vera", &["freeze", "cluster", "--for", "1m", "-o", "json"]);
    assert_eq!((refused.exit, refused.json()["error"]["code"].as_str()), (3, Some("role-too-weak")), "{refused:?}");
    assert_eq!(lab.ask_as("otto", &["freeze", "cluster", "--for", "1m", "--reason", "work"]).exit, 0);
    let trail = lab.ask(&["audit", "show", "-o", "json"]).json();
    let last = trail["records"].as_array().expect("records").last().expect("one").clone();
    assert_eq!((last["who"].as_str(), last["action"].as_str()), (Some("otto"), Some("freeze")));
    assert!(last["key"].as_str().expect("a key").starts_with("cert:"));
    // The name that was asked for must be the one in the certificate.
    let host = format!("localhost:{}", lab.admin_port);
    let other = super::lab::antipode(&["status", "--host", &host, "--identity", &lab.text("vera"), "-o", "json"]);
    assert_eq!(other.exit, 5, "{other:?}");
    assert!(other.out.contains("localhost was asked for"), "{other:?}");
}

#[test]
fn a_revoked_person_is_cut_off_while_connected_and_others_are_not() {
    let lab = Lab::start();
    runtime().block_on(async {
        let (mut vera, up) = dial(&lab, "vera").await.expect("a connection");
        let mut otto = connect(&lab, "otto").await.expect("a connection");
        assert_eq!(ask(&mut vera, "GET /v1/status", Vec::new()).await.expect("an answer"), StatusCode::OK);
        let revoked = super::lab::antipode(&["pki", "revoke", "--dir", &lab.text("authority"), "--person", "vera"]);
        assert_eq!(revoked.exit, 0, "{revoked:?}");
        std::fs::copy(lab.path("authority/crl.pem"), lab.path("tls/crl.new")).expect("copied");
        std::fs::rename(lab.path("tls/crl.new"), lab.path("tls/crl.pem")).expect("in place");
        // Nothing is asked meanwhile: the agent must end the connection by itself.
        tokio::time::timeout(LIMIT, up).await.expect("the open connection ends").expect("its task");
        assert!(ask(&mut vera, "GET /v1/status", Vec::new()).await.is_err());
        assert_eq!(ask(&mut otto, "GET /v1/status", Vec::new()).await.expect("an answer"), StatusCode::OK);
    });
    let again = lab.ask_as("vera", &["status"]);
    assert_eq!(again.exit, 5, "{again:?}");
    assert_eq!(lab.ask_as("otto", &["status"]).exit, 0);
}

#[test]
fn two_names_on_one_key_are_one_person() {
    let lab = Lab::start();
    let authority = Authority::open(&lab.path("authority")).expect("the authority");
    let (key, request) = token::make_request().expect("a key");
    for name in ["eve", "mallory"] {
        let holder = Holder::Operator { name: name.parse().expect("a name"), role: Role::Operator };
        let signed = authority.sign(&request, &holder, Validity::from_now(Duration::from_secs(600))).expect("signed");
        let trust = Trust::of(&authority).expect("trust");
        write_identity(&lab.path(name), &signed, Some(&key), &trust).expect("written");
        let said = lab.ask_as(name, &["freeze", "cluster", "--for", "1m", "--reason", name]);
        assert_eq!(said.exit, 0, "{said:?}");
    }
    let keys = wait_for("both records", || {
        let trail = lab.ask(&["audit", "show", "-o", "json"]).json();
        let of = |who: &str| {
            let records = trail["records"].as_array()?;
            Some(records.iter().find(|record| record["who"] == who)?["key"].as_str()?.to_owned())
        };
        Some((of("eve")?, of("mallory")?))
    });
    assert_eq!(keys.0, keys.1);
}

#[test]
fn a_stranger_is_not_let_in() {
    let lab = Lab::start();
    let authority = lab.text("strange");
    let out = lab.text("stranger");
    assert_eq!(super::lab::antipode(&["pki", "init", "--dir", &authority, "--cluster", "demo"]).exit, 0);
    let args = ["pki", "issue", "--dir", &authority, "--person", "zoe", "--role", "admin", "--out", &out];
    assert_eq!(super::lab::antipode(&args).exit, 0);
    // Of another authority, whatever its name: neither end trusts the other.
    assert_eq!(lab.ask_as("stranger", &["status"]).exit, 5);
    // And with our roots to trust, so that the agent is the one who refuses.
    for file in ["ca.pem", "crl.pem"] {
        std::fs::copy(lab.path("vera").join(file), lab.path("stranger").join(file)).expect("copied");
    }
    assert_eq!(lab.ask_as("stranger", &["status"]).exit, 5);
    let missing = super::lab::antipode(&["status", "--host", "127.0.0.1:1"]);
    assert_eq!(missing.exit, 2, "a certificate is asked for: {missing:?}");
}
