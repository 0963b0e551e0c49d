//! The authority as a whole, judged by an independent reader of certificates: the `openssl` program (package `openssl`).

use super::authority::Holder;
use super::files::{self, Trust};
use super::*;
use quorum::id::{ClusterName, HostName, SiteName};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

struct World {
    base: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().expect("temporary directory");
        let cluster = ClusterName::new("erp-geo").expect("name");
        let authority = Authority::create(&base.path().join("pki"), &cluster, Validity::from_now(DAY * 30));
        Self { authority: authority.expect("create an authority"), base }
    }

    fn path(&self, name: &str) -> String {
        self.base.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.base.path().join(name), content).expect("write");
        self.path(name)
    }

    /// `openssl verify` against what the authority publishes now; revocation checked.
    fn verify(&self, certified: &Certified, purpose: &str) -> Output {
        let (roots, lists) = (self.path("pki/ca.pem"), self.path("pki/crl.pem"));
        let leaf = self.write("leaf.pem", &certified.certificate_pem);
        let purpose = ["-purpose", purpose, "-crl_check", "-x509_strict"];
        openssl(&[&["verify", "-CAfile", &roots, "-CRLfile", &lists][..], &purpose[..], &[leaf.as_str()][..]].concat())
    }
}

fn openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().expect("run openssl (package openssl)")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn tokyo(host: &str) -> Holder {
    Holder::Host { host: HostName::new(host).expect("name"), site: SiteName::new("tokyo").expect("name") }
}

fn mika(role: Role) -> Holder {
    Holder::Operator { name: "mika".parse().expect("name"), role }
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("one certificate").to_vec()
}

#[test]
fn openssl_accepts_a_host_for_both_ends_and_reads_the_same_names() {
    let world = World::new();
    let host = world.authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    for purpose in ["sslserver", "sslclient"] {
        let verified = world.verify(&host, purpose);
        assert!(verified.status.success(), "{purpose}: {}", said(&verified));
    }
    let leaf = world.path("leaf.pem");
    let names = said(&openssl(&["x509", "-in", &leaf, "-noout", "-ext", "subjectAltName,keyUsage,basicConstraints"]));
    for expected in
        ["URI:antipode://erp-geo/host/tk-k1", "URI:antipode://erp-geo/site/tokyo", "DNS:tk-k1", "CA:FALSE", "Key Encip"]
    {
        assert!(names.contains(expected), "{expected} in {names}");
    }
    let subject = said(&openssl(&["x509", "-in", &leaf, "-noout", "-subject", "-nameopt", "RFC2253"]));
    assert_eq!(subject.trim(), format!("subject={}", files::qemu_name(&host.record.identity)));
    let serial = said(&openssl(&["x509", "-in", &leaf, "-noout", "-serial"]));
    assert_eq!(serial.trim().to_lowercase(), format!("serial={}", host.record.serial));
}

#[test]
fn openssl_refuses_an_operator_as_a_server() {
    let world = World::new();
    let operator = world.authority.issue(&mika(Role::Approver), Validity::from_now(DAY)).expect("issue");
    assert!(world.verify(&operator, "sslclient").status.success());
    assert!(!world.verify(&operator, "sslserver").status.success());
}

#[test]
fn what_is_issued_is_what_the_certificate_says() {
    let world = World::new();
    let host = world.authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    assert_eq!(identity::from_certificate(&der(&host.certificate_pem)).as_ref(), Ok(&host.record.identity));
    let operator = world.authority.issue(&mika(Role::Admin), Validity::from_now(DAY)).expect("issue");
    let identity = identity::from_certificate(&der(&operator.certificate_pem)).expect("an identity");
    assert_eq!(identity, operator.record.identity);
    let Identity::Operator { role, key_fingerprint, .. } = identity else { panic!("{identity} is an operator") };
    assert_eq!((role, key_fingerprint), (Role::Admin, operator.record.key_fingerprint));
}

/// A certificate that our authority would never make, for an identity and these uses.
fn odd_certificate(uris: &[&str], uses: &[rcgen::ExtendedKeyUsagePurpose], is_ca: bool) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    for uri in uris {
        params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().expect("ASCII")));
    }
    params.extended_key_usages = uses.to_vec();
    if is_ca {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let key = rcgen::KeyPair::generate().expect("key");
    params.self_signed(&key).expect("certificate").der().to_vec()
}

#[test]
fn an_identity_with_uses_that_do_not_fit_it_counts_for_nothing() {
    use rcgen::ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    let host = &["antipode://c/host/h", "antipode://c/site/s"][..];
    let operator = &["antipode://c/operator/o?role=admin"][..];
    let refused = Err(identity::IdentityError::Usage);
    assert!(identity::from_certificate(&odd_certificate(host, &[ClientAuth, ServerAuth], false)).is_ok());
    assert!(identity::from_certificate(&odd_certificate(operator, &[ClientAuth], false)).is_ok());
    for (uris, uses, is_ca) in [
        (host, &[ClientAuth][..], false),
        (host, &[ServerAuth], false),
        (host, &[ClientAuth, ServerAuth, Any], false),
        (host, &[ClientAuth, ServerAuth], true),
        (host, &[], false),
        (operator, &[ClientAuth, ServerAuth], false),
        (operator, &[ServerAuth], false),
    ] {
        let certificate = odd_certificate(uris, uses, is_ca);
        assert_eq!(identity::from_certificate(&certificate), refused, "{uris:?} {uses:?} {is_ca}");
    }
}

#[test]
fn a_root_speaks_for_nobody() {
    let world = World::new();
    let (_, root) = world.authority.signing_root().expect("root");
    assert_eq!(identity::from_certificate(&root), Err(identity::IdentityError::Count(0)));
}

#[test]
fn a_revoked_certificate_is_on_the_list_and_only_that_one() {
    let world = World::new();
    let one = world.authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    let two = world.authority.issue(&tokyo("tk-k2"), Validity::from_now(DAY)).expect("issue");
    assert!(world.verify(&one, "sslclient").status.success());
    world.authority.revoke(one.record.serial, RevocationReason::KeyCompromise).expect("revoke");
    let refused = world.verify(&one, "sslclient");
    assert!(!refused.status.success() && said(&refused).contains("revoked"), "{}", said(&refused));
    assert!(world.verify(&two, "sslclient").status.success());
    let unknown = Serial([1; 16]);
    let answer = world.authority.revoke(unknown, RevocationReason::Unspecified);
    assert!(matches!(answer, Err(PkiError::UnknownSerial(s)) if s == unknown));
}

#[test]
fn revoking_a_holder_takes_all_its_certificates_and_nobody_elses() {
    let world = World::new();
    let old = world.authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    let new = world.authority.renew(&old.record.identity, Validity::from_now(DAY)).expect("renew");
    let other = world.authority.issue(&tokyo("tk-k2"), Validity::from_now(DAY)).expect("issue");
    assert!(world.verify(&old, "sslclient").status.success(), "renewing doesn't revoke");
    let reason = RevocationReason::CessationOfOperation;
    let revoked = world.authority.revoke_holder(&old.record.identity, reason).expect("revoke");
    assert_eq!(revoked.len(), 2);
    assert!(revoked.contains(&old.record.serial) && revoked.contains(&new.record.serial));
    assert!(world.verify(&other, "sslclient").status.success());
    let again = world.authority.renew(&old.record.identity, Validity::from_now(DAY));
    assert!(matches!(again, Err(PkiError::NothingToRenew(_))));
}

#[test]
fn a_new_authority_never_overwrites_an_old_one() {
    let world = World::new();
    let key = std::fs::read(world.path("pki/root-1.key")).expect("key");
    let cluster = ClusterName::new("other").expect("name");
    let directory = world.base.path().join("pki");
    let again = Authority::create(&directory, &cluster, Validity::from_now(DAY));
    assert!(matches!(again, Err(PkiError::Exists(_))));
    // Even with the state gone, the key is not up for grabs.
    std::fs::remove_file(directory.join("authority.json")).expect("remove");
    let again = Authority::create(&directory, &cluster, Validity::from_now(DAY));
    assert!(matches!(again, Err(PkiError::Exists(_))));
    assert_eq!(std::fs::read(world.path("pki/root-1.key")).expect("key"), key);
}

#[test]
fn every_file_of_an_authority_and_of_an_identity_is_private() {
    let world = World::new();
    let host = world.authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    world.authority.mint_token(&"tk-k2".parse().expect("name"), &"tokyo".parse().expect("name"), DAY).expect("mint");
    let trust = Trust::of(&world.authority).expect("trust");
    let own = files::write_identity(&world.base.path().join("own"), &host, None, &trust).expect("write");
    files::write_qemu(&world.base.path().join("qemu"), &own).expect("write");
    let mut seen = 0;
    for directory in ["pki", "pki/issued", "pki/tokens", "own", "qemu"] {
        let path = world.base.path().join(directory);
        assert_eq!(mode(&path), 0o700, "{directory}");
        for entry in std::fs::read_dir(path).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_file() {
                assert_eq!(mode(&path), 0o600, "{path:?}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 16, "{seen} files");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[test]
fn during_a_rotation_old_and_new_certificates_count_and_afterwards_only_new_ones() {
    let world = World::new();
    let authority = &world.authority;
    let old = authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    let second = authority.rotate(Validity::from_now(DAY * 60)).expect("rotate");
    let still_old = authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    assert_eq!(still_old.record.root, 1, "an introduced root signs nothing");
    authority.promote(second).expect("promote");
    let new = authority.renew(&old.record.identity, Validity::from_now(DAY)).expect("renew");
    assert_eq!(new.record.root, second);
    assert!(world.verify(&old, "sslclient").status.success(), "the old root is still trusted");
    assert!(world.verify(&new, "sslclient").status.success());
    assert!(matches!(authority.retire(second), Err(PkiError::Retire(..))));
    authority.retire(1).expect("retire");
    assert!(!world.verify(&old, "sslclient").status.success(), "a retired root vouches for nobody");
    assert!(world.verify(&new, "sslclient").status.success());
    assert!(matches!(authority.promote(1), Err(PkiError::Retire(..))));
}

#[test]
fn a_certificate_never_outlives_its_root() {
    let world = World::new();
    let host = world.authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY * 10_000)).expect("issue");
    assert_eq!(host.record.not_after, world.authority.generations().expect("roots")[0].not_after);
    let late = Validity { not_before: host.record.not_after, not_after: i64::MAX };
    assert!(matches!(world.authority.issue(&tokyo("tk-k1"), late), Err(PkiError::Validity(_))));
}

#[test]
fn a_join_token_is_worth_one_certificate_for_one_host() {
    let world = World::new();
    let (host, site): (HostName, SiteName) = ("tk-k9".parse().expect("name"), "tokyo".parse().expect("name"));
    let token = world.authority.mint_token(&host, &site, DAY).expect("mint");
    let carried: JoinToken = token.to_string().parse().expect("token text");
    assert_eq!(carried, token);
    assert!(!format!("{token:?}").contains(&token.to_string()[30..60]), "the secret isn't printed by accident");
    let (_, request) = token::make_request().expect("request");
    let certified = world.authority.redeem(&carried, &request, Validity::from_now(DAY)).expect("redeem");
    assert!(matches!(&certified.record.identity, Identity::Host { host: h, site: s, .. } if *h == host && *s == site));
    assert!(certified.key_pem.is_none(), "the key stays where it was made");
    let verified = world.verify(&certified, "sslserver");
    assert!(verified.status.success(), "{}", said(&verified));
    let again = world.authority.redeem(&carried, &request, Validity::from_now(DAY));
    assert!(matches!(again, Err(PkiError::Token("it was used before"))));
}

#[test]
fn a_token_that_is_wrong_in_any_part_is_refused_and_not_used_up() {
    let world = World::new();
    let (host, site): (HostName, SiteName) = ("tk-k9".parse().expect("name"), "tokyo".parse().expect("name"));
    let token = world.authority.mint_token(&host, &site, DAY).expect("mint");
    let (_, request) = token::make_request().expect("request");
    let text = token.to_string();
    let parts: Vec<&str> = text.split('.').collect();
    let zeros = "0".repeat(64);
    let wrong_secret = [parts[0], parts[1], &zeros, parts[3], parts[4]].join(".");
    let wrong_id = [parts[0], "0000000000000000", parts[2], parts[3], parts[4]].join(".");
    let wrong_cluster = [parts[0], parts[1], parts[2], parts[3], "other"].join(".");
    for wrong in [wrong_secret, wrong_id, wrong_cluster] {
        let wrong: JoinToken = wrong.parse().expect("well-formed");
        assert!(matches!(world.authority.redeem(&wrong, &request, Validity::from_now(DAY)), Err(PkiError::Token(_))));
    }
    for malformed in ["", "antipode-join-1", &text[..text.len() / 2], "antipode-join-2.00.00.00.c"] {
        assert!(malformed.parse::<JoinToken>().is_err(), "{malformed:?}");
    }
    let junk = world.authority.redeem(&token, "not a request", Validity::from_now(DAY));
    assert!(matches!(junk, Err(PkiError::Certificate(_))));
    world.authority.redeem(&token, &request, Validity::from_now(DAY)).expect("the token is still good");
}

#[test]
fn an_expired_token_is_refused() {
    let world = World::new();
    let (host, site) = ("tk-k9".parse().expect("name"), "tokyo".parse().expect("name"));
    let token = world.authority.mint_token(&host, &site, Duration::ZERO).expect("mint");
    let file = std::fs::read_dir(world.base.path().join("pki/tokens")).expect("list").next().expect("one");
    let file = file.expect("entry").path();
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("read")).expect("JSON");
    record["expires"] = 1.into();
    std::fs::write(&file, record.to_string()).expect("write");
    let (_, request) = token::make_request().expect("request");
    let refused = world.authority.redeem(&token, &request, Validity::from_now(DAY));
    assert!(matches!(refused, Err(PkiError::Token("it has expired"))));
}

#[test]
fn a_request_decides_nothing_but_the_key() {
    let world = World::new();
    // A request that asks to be an authority for everything, made by another program.
    let (key, request) = (world.path("greedy.key"), world.path("greedy.csr"));
    let subject = ["-subj", "/O=erp-geo/CN=admin", "-addext", "basicConstraints=CA:TRUE"];
    let names = ["-addext", "subjectAltName=URI:antipode://erp-geo/operator/eve?role=admin"];
    let made = openssl(
        &[
            &["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"][..],
            &["-keyout", &key, "-out", &request][..],
            &subject[..],
            &names[..],
        ]
        .concat(),
    );
    assert!(made.status.success(), "{}", said(&made));
    let request = std::fs::read_to_string(request).expect("request");
    let signed = world.authority.sign(&request, &tokyo("tk-k1"), Validity::from_now(DAY)).expect("sign");
    assert_eq!(identity::from_certificate(&der(&signed.certificate_pem)).as_ref(), Ok(&signed.record.identity));
    assert!(matches!(&signed.record.identity, Identity::Host { host, .. } if host.as_str() == "tk-k1"));
}

#[test]
fn an_identity_on_disk_reads_back_and_fits_qemus_layout() {
    let world = World::new();
    let host = world.authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    let trust = Trust::of(&world.authority).expect("trust");
    let own = files::write_identity(&world.base.path().join("own"), &host, None, &trust).expect("write");
    let material = own.load().expect("load");
    assert_eq!(material.chain[0].as_ref(), der(&host.certificate_pem));
    assert_eq!((material.roots.len(), material.crls.map(|l| l.len())), (1, Some(1)));
    let qemu = world.base.path().join("qemu");
    for _ in 0..2 {
        files::write_qemu(&qemu, &own).expect("write, and write again over it");
    }
    let server = |name: &str| qemu.join(name).to_str().expect("UTF-8").to_owned();
    let (ca, crl) = (server("ca-cert.pem"), server("ca-crl.pem"));
    for end in ["server", "client"] {
        let leaf = server(&format!("{end}-cert.pem"));
        let verified = openssl(&["verify", "-CAfile", &ca, "-CRLfile", &crl, "-crl_check", &leaf]);
        assert!(verified.status.success(), "{}", said(&verified));
        let public = said(&openssl(&["x509", "-in", &leaf, "-noout", "-pubkey"]));
        let of_key = said(&openssl(&["pkey", "-in", &server(&format!("{end}-key.pem")), "-pubout"]));
        assert_eq!(public, of_key, "certificate and key belong together");
    }
}

#[test]
fn a_damaged_record_is_an_error_and_never_a_shorter_list() {
    let world = World::new();
    let host = world.authority.issue(&tokyo("tk-k1"), Validity::from_now(DAY)).expect("issue");
    let other = world.authority.issue(&tokyo("tk-k2"), Validity::from_now(DAY)).expect("issue");
    world.write(&format!("pki/issued/{}.json", host.record.serial), "{");
    let answer = world.authority.revoke(other.record.serial, RevocationReason::Unspecified);
    assert!(matches!(answer, Err(PkiError::Damaged { .. })));
}

/// `qemu-nbd` serving an empty image over TLS to `allowed` only (package `qemu-utils`); killed when dropped.
struct Export(std::process::Child);

impl Export {
    fn start(world: &World, allowed: &Identity) -> Self {
        let image = world.write("image.raw", "");
        std::fs::File::options().write(true).open(&image).and_then(|f| f.set_len(1 << 20)).expect("image");
        let credentials = format!("tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir={}", world.path("qemu"));
        let identity = files::qemu_name(allowed);
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--format=raw", "--tls-creds=t", "--tls-authz=a"]);
        command.args(["--object", &credentials, "--object", &format!("authz-simple,id=a,identity={identity}")]);
        command.arg(format!("--socket={}", world.path("nbd.sock"))).arg(image);
        let export = Self(command.spawn().expect("run qemu-nbd (package qemu-utils)"));
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !world.base.path().join("nbd.sock").exists() {
            assert!(std::time::Instant::now() < deadline, "qemu-nbd opened no socket");
            std::thread::yield_now();
        }
        export
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("end qemu-nbd");
    }
}

fn read_export(world: &World, credentials: &str, hostname: &str) -> Output {
    let object = format!("tls-creds-x509,id=c,endpoint=client,dir={}", world.path(credentials));
    let image = format!("driver=nbd,server.type=unix,server.path={},tls-creds=c", world.path("nbd.sock"));
    let image = format!("{image},tls-hostname={hostname}");
    Command::new("qemu-img").args(["info", "--object", &object, "--image-opts", &image]).output().expect("run qemu-img")
}

#[test]
fn qemu_takes_these_certificates_and_tells_one_host_from_another() {
    let world = World::new();
    let trust = Trust::of(&world.authority).expect("trust");
    let mut identities = Vec::new();
    for (host, own, qemu) in [("tk-k1", "own", "qemu"), ("tk-k2", "own2", "qemu2")] {
        let certified = world.authority.issue(&tokyo(host), Validity::from_now(DAY)).expect("issue");
        let own = files::write_identity(&world.base.path().join(own), &certified, None, &trust).expect("write");
        files::write_qemu(&world.base.path().join(qemu), &own).expect("write");
        identities.push(certified.record.identity);
    }
    let _export = Export::start(&world, &identities[0]);
    let read = read_export(&world, "qemu", "tk-k1");
    assert!(read.status.success(), "{}", said(&read));
    assert!(!read_export(&world, "qemu2", "tk-k1").status.success(), "another host's certificate isn't authorised");
    assert!(!read_export(&world, "qemu", "tk-k2").status.success(), "a server of another name isn't accepted");
}
