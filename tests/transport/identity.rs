//! Who gets in: only a certified, unexpired, unrevoked host of this cluster, under its own name, at its own address.

use crate::world::*;
use antipode::driver::transport::{CloseCode, Counted, Dial, Ended, Path, Refusal, Side, TransportEvent};
use antipode::pki::authority::Holder;
use antipode::pki::{IdentityFiles, RevocationReason, Role, Validity};
use std::time::Duration;

/// `bad` calls `good`, and `good` calls `bad`; neither gets through, and `good` says why.
async fn refused_both_ways(good: &mut Node, bad: &Node, because: Refusal) {
    good.handle.update_peers(vec![bad.as_peer(Dial::Us)]).expect("peers");
    bad.handle.update_peers(vec![good.as_peer(Dial::Us)]).expect("peers");
    // At least once as the called end and once as the calling one.
    good.until_counted(Counted::RefusedByUs(because), 4).await;
    // It is told why, unless it has a reason of its own (each is of another cluster to the other).
    let told = || bad.counted(Counted::RefusedByThem(because)) + bad.counted(Counted::RefusedByUs(because)) >= 2;
    eventually("the refused one knows", told).await;
    assert!(!good.is_up(Path(0)), "{because:?}: {:?}", good.handle.stats());
    let ups = [good.counted(Counted::ConnectionsUp), bad.counted(Counted::ConnectionsUp)];
    assert_eq!(ups, [0, 0], "neither end ever took the other for connected");
    let wanted = |event: &TransportEvent| match event {
        TransportEvent::Refused { because: why, by: Side::Us, peer, .. } if *why == because => Some(peer.clone()),
        _ => None,
    };
    assert_eq!(good.next("refusal", wanted).await, Some(bad.name.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused() {
    let (ours, theirs) = (World::new("c"), World::new("c"));
    let (mut good, bad) = (ours.start("a"), theirs.start("b"));
    refused_both_ways(&mut good, &bad, Refusal::UnknownAuthority).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused() {
    let world = World::new("c");
    let mut good = world.start("a");
    let now = Validity::from_now(Duration::ZERO).not_after;
    let expired = world.issue("b", Validity { not_before: now - 7200, not_after: now - 3600 });
    let identity = world.write("b", &expired);
    let bad = Node::start(world.config("b", identity, vec![loopback()]));
    refused_both_ways(&mut good, &bad, Refusal::Expired).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused() {
    let world = World::new("c");
    let bad = world.start("b");
    let (identity, _) = world.equip("a");
    world.revoke("b");
    world.publish_to("a");
    let mut good = Node::start(world.config("a", identity, vec![loopback()]));
    refused_both_ways(&mut good, &bad, Refusal::Revoked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_under_another_name_is_refused() {
    let world = World::new("c");
    let mut good = world.start("a");
    let impostor = world.start("x");
    // Called at the address of b, x answers; x calls, and is nobody's peer.
    let mut b = impostor.as_peer(Dial::Us);
    b.host = host("b");
    good.handle.update_peers(vec![b]).expect("peers");
    impostor.handle.update_peers(vec![good.as_peer(Dial::Us)]).expect("peers");
    good.until_counted(Counted::RefusedByUs(Refusal::WrongName), 4).await;
    impostor.until_counted(Counted::RefusedByThem(Refusal::WrongName), 2).await;
    assert_eq!(good.counted(Counted::ConnectionsUp), 0);
    let wanted = |event: &TransportEvent| match event {
        TransportEvent::Refused { because: Refusal::WrongName, .. } => Some(()),
        _ => None,
    };
    good.next("refusal", wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_another_cluster_is_refused_even_under_the_same_authority() {
    let world = World::new("c");
    let mut good = world.start("a");
    // The same root, pretending to be another cluster's: only the identity tells.
    let directory = world.base.path().join("pki");
    let state = std::fs::read_to_string(directory.join("authority.json")).expect("state");
    std::fs::write(directory.join("authority.json"), state.replace("\"cluster\": \"c\"", "\"cluster\": \"d\""))
        .expect("write");
    let authority = antipode::pki::Authority::open(&directory).expect("open");
    assert_eq!(authority.cluster().as_str(), "d");
    let other = World { base: tempfile::tempdir().expect("temporary directory"), authority };
    let bad = other.start("b");
    refused_both_ways(&mut good, &bad, Refusal::WrongCluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_at_an_address_that_is_not_its_own_is_refused() {
    let world = World::new("c");
    let (good, wanderer, other) = (world.start("a"), world.start("b"), world.start("c1"));
    let mut elsewhere = wanderer.as_peer(Dial::Them);
    elsewhere.addresses = vec!["127.0.0.9:9".parse().expect("address")];
    good.handle.update_peers(vec![elsewhere, other.as_peer(Dial::Them)]).expect("peers");
    wanderer.handle.update_peers(vec![good.as_peer(Dial::Us)]).expect("peers");
    good.until_counted(Counted::RefusedByUs(Refusal::WrongAddress), 2).await;
    assert_eq!(good.counted(Counted::ConnectionsUp), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_certificate_is_no_host() {
    let world = World::new("c");
    let good = world.start("a");
    let holder = Holder::Operator { name: "mika".parse().expect("name"), role: Role::Admin };
    let operator = world.authority.issue(&holder, Validity::from_now(Duration::from_secs(3600))).expect("issue");
    let identity = world.write("mika", &operator);
    let stranger = Stranger::bulk(Some(&identity));
    let other = world.start("b");
    good.handle.update_peers(vec![other.as_peer(Dial::Them)]).expect("peers");
    let connection = stranger.call(good.addresses()[0]).await.expect("the handshake itself succeeds");
    let ended = connection.closed().await;
    let quinn::ConnectionError::ApplicationClosed(close) = ended else { panic!("{ended:?}") };
    assert_eq!(CloseCode::from_wire(close.error_code.into_inner()), CloseCode::NotAHost);
    good.until_counted(Counted::RefusedByUs(Refusal::NotAHost), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_certificate() {
    let world = World::new("c");
    let (good, other) = (world.start("a"), world.start("b"));
    good.handle.update_peers(vec![other.as_peer(Dial::Them)]).expect("peers");
    let stranger = Stranger::bulk(None);
    if let Ok(connection) = stranger.call(good.addresses()[0]).await {
        connection.closed().await;
    }
    good.until_counted(Counted::RefusedByUs(Refusal::NoCertificate), 1).await;
    assert_eq!(good.counted(Counted::ConnectionsUp), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_loses_its_live_connection_and_does_not_come_back() {
    let world = World::new("c");
    let (mut a, mut b) = (world.start("a"), world.start("b"));
    let mut c = world.start("c1");
    introduce(&[&a, &b, &c]);
    for peer in ["b", "c1"] {
        a.up(&host(peer), Path(0)).await;
    }
    world.revoke("b");
    world.publish_to("a");
    let done = a.handle.reload().expect("reload");
    assert_eq!((done.closed, done.kept), (vec![(b.name.clone(), Path(0))], 1), "c1 stays");
    let wanted = |event: &TransportEvent| match event {
        TransportEvent::PathDown { because, .. } => Some(because.clone()),
        _ => None,
    };
    assert_eq!(a.next("end of the path", wanted).await, Ended::ByUs(CloseCode::Distrusted));
    let wanted = |event: &TransportEvent| match event {
        TransportEvent::PathDown { peer, because, .. } if *peer == host("a") => Some(because.clone()),
        _ => None,
    };
    assert_eq!(b.next("end of the path", wanted).await, Ended::ByThem(CloseCode::Distrusted));
    // It was refused once by the walk, and again each time that a dials it.
    a.until_counted(Counted::RefusedByUs(Refusal::Revoked), 3).await;
    assert!(a.handle.paths().iter().all(|p| !p.up || p.peer != b.name));
    beat(&a, &mut c, Path(0), b"unharmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_are_taken_up_and_connections_stay() {
    let world = World::new("c");
    let (mut a, mut b) = pair(&world).await;
    let before = b.handle.own_certificate();
    world.equip("b");
    let done = b.handle.reload().expect("reload");
    assert_eq!((done.closed.len(), done.kept), (0, 1));
    assert_ne!(b.handle.own_certificate().serial, before.serial);
    beat(&a, &mut b, Path(0), b"still here").await;
    assert_eq!((a.counted(Counted::ConnectionsDown), b.counted(Counted::ConnectionsDown)), (0, 0));
    // The old certificate is revoked now; the connection that was set up with it ends, the next one uses the new one.
    world.authority.revoke(before.serial.parse().expect("serial"), RevocationReason::Superseded).expect("revoke");
    world.publish_to("a");
    assert_eq!(a.handle.reload().expect("reload").closed.len(), 1);
    a.up(&b.name, Path(0)).await;
    beat(&a, &mut b, Path(0), b"with the new one").await;
    beat(&b, &mut a, Path(0), b"and back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_keeps_its_connection_and_can_still_be_revoked() {
    let world = World::new("c");
    let a = world.start("a");
    let brief = world.issue("b", Validity::from_now(Duration::from_secs(6)));
    let identity = world.write("b", &brief);
    let mut b = Node::start(world.config("b", identity, vec![loopback()]));
    introduce(&[&a, &b]);
    eventually("the path is up", || a.is_up(Path(0)) && b.is_up(Path(0))).await;
    let expired = || Validity::from_now(Duration::ZERO).not_after > brief.record.not_after;
    eventually("the certificate has expired", expired).await;
    assert_eq!(a.handle.reload().expect("reload").kept, 1, "a working host isn't cut off by a date");
    beat(&a, &mut b, Path(0), b"still here").await;
    world.revoke("b");
    world.publish_to("a");
    assert_eq!(a.handle.reload().expect("reload").closed.len(), 1, "expiry hides no revocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_takes_nobody_down() {
    let world = World::new("c");
    let (a, mut b) = pair(&world).await;
    for damage in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let path = world.base.path().join("a/identity.pem");
        let whole = std::fs::read(&path).expect("read");
        std::fs::write(&path, damage).expect("write");
        a.handle.reload().expect_err("a broken file");
        std::fs::write(&path, whole).expect("write");
    }
    // Another host's certificate in place of its own, and a root without its list.
    let own = IdentityFiles::in_directory(&world.base.path().join("a"));
    let (_, other) = world.equip("z");
    world.write("a", &other);
    a.handle.reload().expect_err("somebody else's certificate");
    world.equip("a");
    world.authority.rotate(Validity::from_now(Duration::from_secs(86_400))).expect("rotate");
    std::fs::write(&own.authorities, world.trust().authorities_pem).expect("write");
    a.handle.reload().expect_err("a root without a revocation list");
    beat(&a, &mut b, Path(0), b"still here").await;
    assert_eq!(a.counted(Counted::ConnectionsDown), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_the_root_ends_no_connection_until_the_old_root_is_retired() {
    let world = World::new("c");
    let (mut a, mut b) = pair(&world).await;
    let second = world.authority.rotate(Validity::from_now(Duration::from_secs(86_400))).expect("rotate");
    let publish = |world: &World| ["a", "b"].iter().for_each(|name| world.publish_to(name));
    publish(&world);
    assert_eq!((a.handle.reload().expect("reload").kept, b.handle.reload().expect("reload").kept), (1, 1));
    world.authority.promote(second).expect("promote");
    world.equip("b");
    assert_eq!(b.handle.reload().expect("reload").kept, 1);
    beat(&a, &mut b, Path(0), b"old root at one end, new at the other").await;
    a.handle.close_peer(&b.name).expect("close");
    a.up(&b.name, Path(0)).await;
    world.equip("a");
    assert_eq!(a.handle.reload().expect("reload").kept, 1);
    world.authority.retire(1).expect("retire");
    publish(&world);
    assert_eq!(b.handle.reload().expect("reload").closed.len(), 1, "a's connection was set up with the old root");
    a.up(&b.name, Path(0)).await;
    beat(&b, &mut a, Path(0), b"all new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_taken_off_the_list_is_closed_and_ignored() {
    let world = World::new("c");
    let (a, mut b) = pair(&world).await;
    a.handle.update_peers(vec![]).expect("peers");
    let wanted = |event: &TransportEvent| match event {
        TransportEvent::PathDown { because, .. } => Some(because.clone()),
        _ => None,
    };
    assert_eq!(b.next("end of the path", wanted).await, Ended::ByThem(CloseCode::Removed));
    b.handle.update_peers(vec![a.as_peer(Dial::Us)]).expect("peers");
    a.until_counted(Counted::PacketsFromStrangers, 2).await;
    assert_eq!(a.counted(Counted::RefusedByUs(Refusal::WrongName)), 0, "its packets aren't even read");
}
