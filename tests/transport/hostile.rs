//! What hostile senders get: nothing, at a bounded price.

use crate::world::*;
use antipode::driver::transport::{Channel, Counted, Dial, FRAME_BYTES_MAX, Path, Refusal, TransportEvent};
use antipode::pki::IdentityFiles;
use bytes::Bytes;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn junk_from_a_known_address_is_dropped_and_counted() {
    let world = World::new("c");
    let (mut a, mut b) = pair(&world).await;
    let sender = std::net::UdpSocket::bind(loopback()).expect("bind");
    let to = a.addresses()[0];
    let mut noise = 0x9e37_79b9_u32;
    let mut sent = 0;
    for length in (1..1400).step_by(7) {
        let random: Vec<u8> = (0..length)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        sender.send_to(&random, to).expect("send");
        sender.send_to(&b"GET / HTTP/1.1\r\nHost: antipode\r\n\r\n".repeat(length / 30 + 1), to).expect("send");
        // Looks like the first packet of a connection of ours, and holds nothing.
        let marked = [&[0xc0, 0, 0, 0, 1, 20][..], b"ApB1", &random].concat();
        sender.send_to(&marked, to).expect("send");
        sent += 2;
    }
    a.until_counted(Counted::PacketsMalformed, sent).await;
    assert_eq!(a.counted(Counted::ConnectionsUp), 1);
    beat(&a, &mut b, Path(0), b"unharmed").await;
    beat(&b, &mut a, Path(0), b"unharmed too").await;
}

/// A host with a good certificate that doesn't keep to the protocol.
async fn rogue(world: &World) -> (Node, Stranger) {
    let a = world.start("a");
    let (identity, _) = world.equip("b");
    let stranger = Stranger::bulk(Some(&identity));
    let b =
        antipode::driver::transport::Peer { host: host("b"), addresses: vec![stranger.address()], dial: Dial::Them };
    a.handle.update_peers(vec![b]).expect("peers");
    (a, stranger)
}

async fn says(stranger: &Stranger, to: &Node, bytes: &[u8]) -> quinn::ConnectionError {
    let connection = stranger.call(to.addresses()[0]).await.expect("a good certificate");
    let mut welcome = connection.accept_uni().await.expect("welcome");
    let mut version = [0];
    welcome.read_exact(&mut version).await.expect("version");
    let mut stream = connection.open_uni().await.expect("open");
    // The connection may be closed while this is being written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.finish();
    connection.closed().await
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_malformed_frames_end_the_connection_and_are_counted() {
    let world = World::new("c");
    let (a, stranger) = rogue(&world).await;
    let oversized = [&[1][..], &(FRAME_BYTES_MAX as u32 + 1).to_be_bytes(), &[0; 100]].concat();
    let largest = [&[1][..], &u32::MAX.to_be_bytes(), &[0; 100]].concat();
    for (n, bytes) in [oversized, largest].iter().enumerate() {
        says(&stranger, &a, bytes).await;
        a.until_counted(Counted::FramesOversized, n as u64 + 1).await;
    }
    let wrong_version = vec![7, 0, 0, 0, 0, 0];
    let cut_off = [&[1][..], &100_u32.to_be_bytes(), &[3; 50]].concat();
    for (n, bytes) in [wrong_version, cut_off].iter().enumerate() {
        says(&stranger, &a, bytes).await;
        a.until_counted(Counted::FramesMalformed, n as u64 + 1).await;
    }
    eventually("all are gone", || a.counted(Counted::ConnectionsUp) == a.counted(Counted::ConnectionsDown)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_do_those_that_ride_with_beats() {
    let world = World::new("c");
    let (identity, _) = world.equip("b");
    let stranger = Stranger::new(*b"ApB1", b"antipode-beat/2", Some(&identity));
    let oversized = [&[1][..], &(FRAME_BYTES_MAX as u32 + 1).to_be_bytes(), &[0; 100]].concat();
    let cut_off = [&[1][..], &100_u32.to_be_bytes(), &[3; 50]].concat();
    // Whether a host without a vote or a voter says it.
    for dial in [Dial::Them, Dial::ByName] {
        let a = world.start("a");
        for bytes in [&oversized, &cut_off] {
            let connection = stranger.calls_as_b(&a, dial).await;
            let mut stream = connection.open_uni().await.expect("open");
            // The connection may be closed while this is being written.
            let _ = stream.write_all(bytes).await;
            let _ = stream.finish();
            connection.closed().await;
        }
        a.until_counted(Counted::FramesOversized, 1).await;
        a.until_counted(Counted::FramesMalformed, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_never_says_what_it_is_for_is_given_up() {
    let world = World::new("c");
    let (a, stranger) = rogue(&world).await;
    let connection = stranger.call(a.addresses()[0]).await.expect("a good certificate");
    let (mut send, _receive) = connection.open_bi().await.expect("open");
    // Nothing but the end.
    send.finish().expect("finish");
    a.until_counted(Counted::FramesMalformed, 1).await;
    assert_eq!(a.counted(Counted::StreamsAccepted), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn beats_can_not_be_sent_where_bulk_goes_nor_streams_where_beats_go() {
    let world = World::new("c");
    let (a, _) = rogue(&world).await;
    let identity = IdentityFiles::in_directory(&world.base.path().join("b"));
    let bulk = Stranger::bulk(Some(&identity)).call(a.addresses()[0]).await.expect("bulk");
    assert_eq!(bulk.max_datagram_size(), None);
    let beats = Stranger::new(*b"ApB1", b"antipode-beat/1", Some(&identity));
    let beats = beats.call(a.addresses()[0]).await.expect("beats");
    let opened = tokio::time::timeout(Duration::from_millis(300), beats.open_bi()).await;
    assert!(opened.is_err(), "no stream may be opened");
    // A mark that promises one kind and a protocol name that says the other.
    let mixed = Stranger::new(*b"ApB1", b"antipode-bulk/1", Some(&identity));
    mixed.call(a.addresses()[0]).await.expect_err("a mixture");
    let other = Stranger::new(*b"ApB1", b"h3", Some(&identity));
    other.call(a.addresses()[0]).await.expect_err("another protocol");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_can_be_resumed() {
    let world = World::new("c");
    let (a, _) = rogue(&world).await;
    let identity = IdentityFiles::in_directory(&world.base.path().join("b"));
    let tickets = Tickets::default();
    let stranger = Stranger::collecting(*b"ApK1", b"antipode-bulk/1", (Some(&identity), tickets.clone()));
    let connection = stranger.call(a.addresses()[0]).await.expect("a good certificate");
    // The welcome comes after everything that the handshake could have brought.
    let mut welcome = connection.accept_uni().await.expect("welcome");
    welcome.read_exact(&mut [0]).await.expect("version");
    assert_eq!(tickets.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connection_attempts_is_bounded_and_peers_still_get_in() {
    const ATTEMPTS: usize = 500;
    const ROUNDS: usize = 3;
    let world = World::new("c");
    let (mut a, b) = pair(&world).await;
    let mut most = 0;
    for _ in 0..ROUNDS {
        let stranger = Stranger::bulk(None);
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..ATTEMPTS {
            let calling = stranger.call(a.addresses()[0]);
            attempts.spawn(async move {
                if let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_secs(2), calling).await {
                    connection.closed().await;
                }
            });
        }
        while attempts.join_next().await.is_some() {
            most = most.max(a.handle.open_connections());
        }
    }
    let refused = |refusal| a.counted(Counted::RefusedByUs(refusal));
    let begun: u64 = Refusal::ALL.into_iter().map(refused).sum();
    let kept_out = a.counted(Counted::AttemptsIgnored) + a.counted(Counted::AttemptsRetried);
    let counted = a.handle.stats();
    assert!(kept_out as usize >= ATTEMPTS, "{counted:?}");
    assert!((begun as usize) < ATTEMPTS * ROUNDS / 2, "{begun} handshakes were begun: {counted:?}");
    assert!(most < ATTEMPTS / 2, "{most} connections at once");
    eventually("nothing is left of them", || a.handle.open_connections() == 1).await;
    // The connection that was up never noticed, and a new one is let in.
    assert_eq!(a.counted(Counted::ConnectionsDown), 0);
    let mut c = world.start("c1");
    a.handle.update_peers(vec![b.as_peer(Dial::ByName), c.as_peer(Dial::Them)]).expect("peers");
    c.handle.update_peers(vec![a.as_peer(Dial::Us)]).expect("peers");
    c.up(&a.name, Path(0)).await;
    beat(&c, &mut a, Path(0), b"let in").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_floods_with_messages_is_slowed_down_and_nothing_is_lost() {
    let world = World::new("c");
    let a = world.start("a");
    let (identity, _) = world.equip("b");
    let mut b = Node::start_with_room(world.config("b", identity, vec![loopback()]), 2);
    introduce(&[&a, &b]);
    let mut taken = 0_u32;
    let message = |n: u32| Bytes::from([&n.to_be_bytes()[..], &[0; 60_000]].concat());
    // Nobody reads at b: the queue at a fills up, and then a is told so.
    eventually("the sender is told to stop", || match a.handle.send_message(&b.name, Channel(0), message(taken)) {
        Ok(()) => {
            taken += 1;
            false
        }
        Err(_) => true,
    })
    .await;
    for expected in 0..taken {
        let wanted = |event: &TransportEvent| match event {
            TransportEvent::Message { bytes, .. } => bytes.first_chunk().map(|b| u32::from_be_bytes(*b)),
            _ => None,
        };
        assert_eq!(b.next("message", wanted).await, expected);
    }
}
