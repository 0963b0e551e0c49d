//! What stands behind the devices of the contract suite: scripts, a Redfish service, a logical unit, an sbd device.

use super::bmc::{Bmc, Effect, Failure, Manners, SYSTEM};
use super::kinds::{Bench, Fault, PASSWORD, Rig};
use super::unit::{Nexus, Shared, Unit, WWID};
use fencing::device::redfish::tls::Pin;
use fencing::device::reservation::claim::{Aptpl, Policy};
use fencing::device::reservation::scsi::{Path as ScsiPath, Sort};
use fencing::device::reservation::{Open, Reservation, Shared as Volume};
use fencing::facts::{Binding, DeviceFacts, Proves, Rhythm};
use fencing::key::{KeyEpoch, ReservationKey, VolumeClaim};
use fencing::name::{DeviceName, VolumeName};
use fencing::target::Place;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn secret(folder: &Path) -> String {
    let path = folder.join("secret");
    std::fs::write(&path, PASSWORD).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("{{ file = '{}' }}", path.display())
}

/// A program written in shell, with a folder for its state.
pub struct Scripted(TempDir);

/// What every script begins with: its fault, and its machine.
const PREAMBLE: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >> argv
fault=$(cat fault 2>/dev/null)
is_on() { [ -e on ]; }
off() { echo off >> offs; [ "$fault" = AcceptAndStayOn ] || rm -f on; }
case $fault in
  Hang) echo $$ >> hanging; sleep 600;;
  BreakOff) kill -9 $$;;
esac
"#;

impl Scripted {
    pub fn bench(kind: &str, script: &str, table: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, format!("{PREAMBLE}{script}")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let table = table.replace("PROGRAM", &program.display().to_string()).replace("SECRET", &secret(folder.path()));
        let table = format!("name = 'device'\nkind = '{kind}'\n{table}");
        let device = fencing::device::build(table.parse().unwrap()).unwrap_or_else(|problems| panic!("{problems:?}"));
        let rig = Self(folder);
        rig.set_on(true);
        Bench { device, rig: Box::new(rig), claims: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

impl Rig for Scripted {
    fn set_on(&self, on: bool) {
        if on {
            std::fs::write(self.path("on"), "").unwrap();
        } else {
            let _ = std::fs::remove_file(self.path("on"));
        }
    }

    fn is_on(&self) -> bool {
        self.path("on").exists()
    }

    fn begin(&self, fault: Fault) {
        std::fs::write(self.path("fault"), format!("{fault:?}")).unwrap();
    }

    fn offs(&self) -> usize {
        self.text("offs").lines().count()
    }

    fn seen_outside(&self) -> String {
        self.text("argv")
    }

    fn hanging(&self) -> Vec<String> {
        self.text("hanging").lines().map(str::to_owned).collect()
    }
}

/// A Redfish service behind real TLS.
pub struct Service(Bmc, #[expect(dead_code, reason = "kept so that the secret stays")] TempDir);

impl Service {
    pub fn bench() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["bmc".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pin = Pin::of(certificate.der());
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let bmc = Bmc::new(Manners { effect: Effect::Off(Duration::ZERO), ..Manners::default() });
        tokio::spawn(serve(TcpListener::from_std(listener).unwrap(), TlsAcceptor::from(Arc::new(config)), bmc.clone()));
        let table = format!(
            "name = 'device'\nkind = 'redfish'\nurl = 'https://127.0.0.1:{port}{SYSTEM}'\nuser = 'admin'\npassword = {}\npins = ['{pin}']",
            secret(folder.path())
        );
        let device = fencing::device::build(table.parse().unwrap()).unwrap_or_else(|problems| panic!("{problems:?}"));
        Bench { device, rig: Box::new(Self(bmc, folder)), claims: BTreeMap::new() }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, bmc: Bmc) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, bmc) = (acceptor.clone(), bmc.clone());
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                bmc.serve(stream).await;
            }
        });
    }
}

impl Rig for Service {
    fn set_on(&self, on: bool) {
        self.0.set_on(on);
    }

    fn is_on(&self) -> bool {
        self.0.is_on()
    }

    fn begin(&self, fault: Fault) {
        self.0.change(|manners| match fault {
            Fault::AcceptAndStayOn => manners.effect = Effect::None,
            Fault::Hang => manners.falls = Some((0, Failure::Hang)),
            Fault::Garbage => manners.falls = Some((0, Failure::NoSense)),
            Fault::RefuseLogin => manners.locks_after = Some(0),
            Fault::BreakOff => manners.falls = Some((0, Failure::CloseMidAnswer)),
            Fault::OtherMachine => manners.other_machine = Some((0, u32::MAX)),
        });
    }

    fn offs(&self) -> usize {
        self.0.log().offs as usize
    }
}

/// A logical unit that host 10 holds.
pub struct Storage(Arc<Shared>);

impl Storage {
    pub fn bench() -> Bench {
        let key = |host, epoch| ReservationKey::new(7, host, KeyEpoch::new(1, epoch).unwrap()).unwrap();
        let unit = Unit { can_abort: true, can_persist: true, ..Unit::default() };
        let (unit, name) = (Shared::new(unit), VolumeName::new("v1").unwrap());
        let rhythm = Duration::from_secs(1);
        let facts = DeviceFacts {
            name: DeviceName::new("device").unwrap(),
            kind: "reservation",
            proves: Proves::Storage([name.clone()].into()),
            binding: Binding::Claim,
            rhythm: Rhythm { read_limit: rhythm, off_limit: rhythm, poll: rhythm, settle: rhythm, off_again: rhythm },
            endpoint: String::new(),
            place: Place::default(),
            lab: false,
        };
        let nexus = unit.clone();
        let open: Open = Arc::new(move |path| {
            let number = if path.ends_with("a") { 11 } else { 12 };
            Ok(Box::new(Nexus { number, unit: nexus.clone() }) as Box<dyn ScsiPath>)
        });
        let volume = Volume { name: name.clone(), wwid: WWID.to_owned(), paths: vec!["/a".into(), "/b".into()] };
        let policy = Policy { sort: Sort::RegistrantsOnly, aptpl: Aptpl::Prefer, drain: Duration::ZERO };
        let claim = VolumeClaim { own: key(20, 5), victims: [key(10, 4)].into() };
        let rig = Self(unit);
        rig.set_on(true);
        let device = Arc::new(Reservation::new(facts, vec![volume], policy, open));
        Bench { device, rig: Box::new(rig), claims: BTreeMap::from([(name, claim)]) }
    }

    fn victim() -> u64 {
        ReservationKey::new(7, 10, KeyEpoch::new(1, 4).unwrap()).unwrap().raw()
    }
}

impl Rig for Storage {
    fn set_on(&self, on: bool) {
        let mut unit = self.0.lock();
        if on {
            unit.keys.insert(1, Self::victim());
            unit.held = Some((1, 5));
        } else {
            // As another claimant would leave it: the victim gone, and our key in place.
            unit.keys.remove(&1);
            let own = ReservationKey::new(7, 20, KeyEpoch::new(1, 5).unwrap()).unwrap().raw();
            unit.keys.insert(11, own);
            unit.keys.insert(12, own);
            unit.held = Some((11, 5));
        }
    }

    fn is_on(&self) -> bool {
        self.0.lock().keys.values().any(|key| *key == Self::victim())
    }

    fn begin(&self, fault: Fault) {
        let mut unit = self.0.lock();
        match fault {
            Fault::AcceptAndStayOn => unit.only_says_so = true,
            Fault::Hang => unit.hangs = true,
            Fault::Garbage => unit.garbage = true,
            Fault::OtherMachine => unit.other = true,
            Fault::RefuseLogin | Fault::BreakOff => panic!("a logical unit has no {fault:?}"),
        }
    }

    fn offs(&self) -> usize {
        self.0.lock().commands.iter().filter(|(code, _)| *code == 0x5f).count()
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// An sbd device in a file (which only a lab device may use), with one slot.
pub struct Pill(PathBuf, #[expect(dead_code, reason = "kept so that the disk stays")] TempDir);

impl Pill {
    const MAILBOX: usize = 2 * 512;

    pub fn bench() -> Bench {
        // O_DIRECT needs a real file system, which /tmp need not be.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("disk");
        let mut image = vec![0; 1 << 20];
        image[..10].copy_from_slice(b"SBD_SBD_\x02\xff");
        image[12..16].copy_from_slice(&512_u32.to_be_bytes());
        image[512..519].copy_from_slice(b"\x01tk-p1\0");
        std::fs::write(&path, image).unwrap();
        let table =
            format!("name = 'device'\nkind = 'sbd'\nlab = true\nnode = 'tk-p1'\ndevices = ['{}']", path.display());
        let device = fencing::device::build(table.parse().unwrap()).unwrap_or_else(|problems| panic!("{problems:?}"));
        Bench { device, rig: Box::new(Self(path, folder)), claims: BTreeMap::new() }
    }

    fn message(&self) -> u8 {
        std::fs::read(&self.0).unwrap()[Self::MAILBOX]
    }
}

impl Rig for Pill {
    fn set_on(&self, on: bool) {
        let mut image = std::fs::read(&self.0).unwrap();
        image[Self::MAILBOX] = if on { 0 } else { 3 };
        std::fs::write(&self.0, image).unwrap();
    }

    fn is_on(&self) -> bool {
        self.message() != 3
    }

    fn begin(&self, fault: Fault) {
        assert_eq!(fault, Fault::Garbage, "a disk has no other");
        std::fs::write(&self.0, vec![0xa5; 1 << 20]).unwrap();
    }

    fn offs(&self) -> usize {
        usize::from(self.message() == 3)
    }
}
