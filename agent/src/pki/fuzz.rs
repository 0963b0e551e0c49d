//! Certificates, requests, tokens and the authority's own files, as a fuzzer makes them up.

use super::issued::IssuedRecord;
use super::token::{JoinReply, make_request};
use super::{JoinToken, Serial, authority, identity, token};
use rcgen::CertificateSigningRequestParams;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// The first byte says what it is.
pub(crate) fn papers(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    let text = std::str::from_utf8(bytes);
    match which & 0x07 {
        0 => identity::from_certificate(bytes).is_ok_and(|identity| {
            assert!(!identity.uris().is_empty());
            true
        }),
        1 => text.is_ok_and(|text| CertificateSigningRequestParams::from_pem(text).is_ok()),
        2 => CertificateSigningRequestParams::from_der(&bytes.into()).is_ok(),
        3 => text.is_ok_and(is_token),
        4 => {
            let certificates = CertificateDer::pem_slice_iter(bytes).filter_map(Result::ok);
            let count = certificates.filter(|der| identity::from_certificate(der).is_ok()).count();
            let lists = CertificateRevocationListDer::pem_slice_iter(bytes).filter_map(Result::ok).count();
            count + lists + usize::from(PrivateKeyDer::from_pem_slice(bytes).is_ok()) > 0
        }
        5 => {
            serde_json::from_slice::<IssuedRecord>(bytes).is_ok() || serde_json::from_slice::<JoinReply>(bytes).is_ok()
        }
        6 => authority::is_state(bytes) || token::is_record(bytes),
        _ => {
            text.is_ok_and(|text| text.parse::<Serial>().is_ok_and(|serial| serial.to_string() == text.to_lowercase()))
        }
    }
}

fn is_token(text: &str) -> bool {
    let Ok(token) = text.parse::<JoinToken>() else { return false };
    assert_eq!(token.to_string().parse::<JoinToken>().ok(), Some(token));
    true
}

pub(crate) fn paper_seeds() -> Vec<Vec<u8>> {
    let with = |which: u8, bytes: &[u8]| [&[which], bytes].concat();
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    let uri = |text: &str| rcgen::SanType::URI(text.try_into().expect("ASCII"));
    params.subject_alt_names = vec![uri("antipode://demo/host/tk-1"), uri("antipode://demo/site/tokyo")];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).expect("signed");
    let (key_pem, request) = make_request().expect("a request");
    let pem = format!("{}{key_pem}", certificate.pem());
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).expect("a request");
    let (id, secret) = ("01".repeat(8), "02".repeat(32));
    let token = format!("antipode-join-1.{id}.{secret}.{}.demo", "ab".repeat(32));
    let state = br#"{"version":1,"cluster":"demo","crl_number":3,"generations":[{"number":1,"standing":"signing","fingerprint":"ab","not_after":99}]}"#;
    let record = br#"{"secret_sha256":"ab","host":"tk-1","site":"tokyo","expires":99,"used":5}"#;
    let reply = br#"{"certificate_pem":"a","authorities_pem":"b","crl_pem":"c"}"#;
    let texts: [(u8, &[u8]); 7] = [
        (1, request.as_bytes()),
        (2, der.as_ref()),
        (3, token.as_bytes()),
        (4, pem.as_bytes()),
        (5, reply),
        (6, state),
        (6, record),
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|(which, bytes)| with(*which, bytes)).collect();
    seeds.push(with(0, certificate.der()));
    seeds.push(with(7, "0f".repeat(16).as_bytes()));
    seeds
}
