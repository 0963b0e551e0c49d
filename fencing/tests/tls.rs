//! Redfish over real TLS on loopback: whose certificate is taken, and that no password goes to any other.

#[expect(dead_code, reason = "hostile.rs uses the rest of the double")]
mod bmc;

use bmc::{Bmc, MACHINE, Manners, PASSWORD, SYSTEM};
use fencing::FencingConfig;
use fencing::device::redfish::tls::Pin;
use fencing::device::{Call, Device};
use fencing::process::Leash;
use fencing::reading::{Observed, Power};
use fencing::trouble::Trouble;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

struct Shown {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

fn self_signed() -> Shown {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["idrac-factory-default".to_owned()]).unwrap().self_signed(&key).unwrap();
    Shown { certificate: certificate.der().clone(), key: key.serialize_der() }
}

/// A CA's certificate in PEM, and one that it signed for 127.0.0.1.
fn signed() -> (String, Shown) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    (ca.pem(), Shown { certificate: leaf.der().clone(), key: key.serialize_der() })
}

/// Serves the double with this certificate; gives its port.
async fn serve(bmc: Bmc, shown: &Shown) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(shown.key.clone()));
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![shown.certificate.clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, bmc) = (acceptor.clone(), bmc.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    bmc.serve(stream).await;
                }
            });
        }
    });
    port
}

fn device(folder: &Path, port: u16, trust: &str) -> Arc<dyn Device> {
    let password = folder.join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let table = format!(
        "name = 'bmc'\nkind = 'redfish'\nurl = 'https://127.0.0.1:{port}{SYSTEM}'\nuser = 'admin'\npassword = {{ file = '{}' }}\n{trust}",
        password.display()
    );
    fencing::device::build(table.parse().unwrap()).unwrap()
}

async fn read(device: &dyn Device) -> Result<Observed, Trouble> {
    let call = Call::reading(Leash::until(Instant::now() + Duration::from_secs(60)));
    device.read(&call).await.map(|sight| {
        assert_eq!(sight.identity.uuid.map(|uuid| uuid.to_string()).as_deref(), Some(MACHINE));
        sight.observed
    })
}

#[tokio::test]
async fn a_pinned_certificate_is_taken_whatever_its_name_says() {
    let (folder, shown) = (tempfile::tempdir().unwrap(), self_signed());
    let port = serve(Bmc::new(Manners::default()), &shown).await;
    let device = device(folder.path(), port, &format!("pins = ['{}']", Pin::of(&shown.certificate)));
    assert_eq!(read(&*device).await, Ok(Observed::Power(Power::On)));
}

#[tokio::test]
async fn a_changed_certificate_is_refused_and_no_login_is_tried() {
    let (folder, shown) = (tempfile::tempdir().unwrap(), self_signed());
    let bmc = Bmc::new(Manners::default());
    let port = serve(bmc.clone(), &shown).await;
    let device = device(folder.path(), port, &format!("pins = ['{}']", Pin::of(&self_signed().certificate)));
    let trouble = read(&*device).await.unwrap_err();
    assert!(matches!(trouble, Trouble::Untrusted { .. }), "{trouble}");
    let pin = Pin::of(&shown.certificate).to_string();
    assert!(trouble.to_string().contains(&pin), "it must show what was shown: {trouble}");
    assert_eq!(bmc.logins(), 0);
}

#[tokio::test]
async fn a_second_pin_is_taken_while_a_certificate_is_being_replaced() {
    let (folder, shown) = (tempfile::tempdir().unwrap(), self_signed());
    let port = serve(Bmc::new(Manners::default()), &shown).await;
    let pins = format!("pins = ['{}', '{}']", Pin::of(&self_signed().certificate), Pin::of(&shown.certificate));
    assert!(read(&*device(folder.path(), port, &pins)).await.is_ok());
}

#[tokio::test]
async fn a_ca_is_taken_for_what_it_signed_and_for_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, shown) = signed();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, ca).unwrap();
    let trust = format!("ca = '{}'", path.display());
    let port = serve(Bmc::new(Manners::default()), &shown).await;
    assert_eq!(read(&*device(folder.path(), port, &trust)).await, Ok(Observed::Power(Power::On)));
    let stranger = serve(Bmc::new(Manners::default()), &self_signed()).await;
    let trouble = read(&*device(folder.path(), stranger, &trust)).await.unwrap_err();
    assert!(matches!(trouble, Trouble::Untrusted { .. }), "{trouble}");
}

#[tokio::test]
async fn a_service_without_tls_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let bmc = Bmc::new(Manners::default());
    let served = bmc.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            served.clone().serve(stream).await;
        }
    });
    let trust = format!("pins = ['{}']", Pin::of(&self_signed().certificate));
    let device = device(folder.path(), port, &trust);
    let call = Call::reading(Leash::until(Instant::now() + Duration::from_secs(3)));
    let answer = tokio::time::timeout(Duration::from_secs(3), device.read(&call)).await;
    assert!(!matches!(answer, Ok(Ok(_))), "it was spoken to: {answer:?}");
    assert_eq!(bmc.logins(), 0);
}

#[test]
fn neither_http_nor_a_missing_trust_is_configurable() {
    let text = |table: &str| {
        let config = FencingConfig::parse(&format!(
            "[[device]]\nname = 'bmc'\nkind = 'redfish'\nuser = 'a'\npassword = {{ env = 'X' }}\n{table}"
        ));
        let problems = config.unwrap().build().err().expect("it was taken");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert!(text("url = 'http://bmc'\nca = '/x'").contains("isn't https"));
    assert!(text("url = 'https://bmc'").contains("pins: are missing"));
    assert!(text("url = 'https://bmc'\nca = '/x'\npins = ['sha256:00']").contains("isn't a pin"));
}
