//! Two endpoints with a bad line between them: packets are lost, doubled, spoilt and overtaken, the kernel has no room, and
//! users go away in the middle. What arrives is what was written, and in the end nothing is left.

use super::tests::{LIMIT, Pair, in_time, until};
use super::{Connection, Endpoint, RecvStream, SendStream};
use crate::driver::transport::quic::Kind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Worlds, each of its own seed, side by side: most of the time is spent waiting for timers.
const WORLDS: u64 = 8;

/// Connections in each.
const CALLS: u64 = 6;

/// Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Stands between two endpoints, each of which takes it for the other one.
struct Line {
    sides: [UdpSocket; 2],
    ends: [SocketAddr; 2],
    dice: Dice,
    is_bad: Arc<AtomicBool>,
}

impl Line {
    async fn between(ends: [SocketAddr; 2], seed: u64) -> Self {
        let bind = || UdpSocket::bind("127.0.0.1:0");
        let sides = [bind().await.expect("bind"), bind().await.expect("bind")];
        Self { sides, ends, dice: Dice(seed), is_bad: Arc::new(AtomicBool::new(true)) }
    }

    async fn run(mut self) {
        let (mut left, mut right) = ([0; 2_000], [0; 2_000]);
        let mut overdue = tokio::time::interval(Duration::from_millis(5));
        let mut held: Option<(usize, Vec<u8>)> = None;
        loop {
            let (to, packet) = tokio::select! {
                read = self.sides[0].recv(&mut left) => (1, left[..read.expect("read")].to_vec()),
                read = self.sides[1].recv(&mut right) => (0, right[..read.expect("read")].to_vec()),
                _ = overdue.tick(), if held.is_some() => {
                    let (to, packet) = held.take().expect("held");
                    self.pass(to, &packet).await;
                    continue;
                }
            };
            self.carry(to, packet, &mut held).await;
        }
    }

    async fn carry(&mut self, to: usize, mut packet: Vec<u8>, held: &mut Option<(usize, Vec<u8>)>) {
        let fate = if self.is_bad.load(Ordering::Acquire) { self.dice.roll(100) } else { 100 };
        match fate {
            0..6 => {}
            6..10 => {
                self.pass(to, &packet).await;
                self.pass(to, &packet).await;
            }
            10..13 => {
                let at = self.dice.roll(packet.len() as u64) as usize;
                packet[at] ^= 1 << self.dice.roll(8);
                self.pass(to, &packet).await;
            }
            13..23 if held.is_none() => *held = Some((to, packet)),
            _ => {
                self.pass(to, &packet).await;
                if let Some((to, overtaken)) = held.take() {
                    self.pass(to, &overtaken).await;
                }
            }
        }
    }

    async fn pass(&self, to: usize, packet: &[u8]) {
        // Refused while the other end is being closed: lost, as it would be.
        let _lost = self.sides[to].send_to(packet, self.ends[to]).await;
    }
}

fn content(stream: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(31) / 7 + stream * 17) as u8).collect()
}

/// Sends back what comes.
async fn echo((mut answer, mut asked): (SendStream, RecvStream)) {
    let mut whole = Vec::new();
    if asked.read_to_end(&mut whole).await.is_ok() && answer.write_all(&whole).await.is_ok() {
        answer.finish();
        answer.arrived().await;
    }
}

/// Lets everybody in, until the endpoint is closed.
async fn serve(pair: Arc<Pair>) {
    let mut served = JoinSet::new();
    while let Some(attempt) = pair.ends[1].attempt().await {
        let Ok(called) = attempt.accept(pair.trust.server(Kind::Bulk), false) else { continue };
        served.spawn(async move {
            let mut echoes = JoinSet::new();
            while let Ok(stream) = called.accept_bi().await {
                echoes.spawn(echo(stream));
            }
            echoes.join_all().await;
        });
    }
    served.join_all().await;
}

/// How a user of a stream behaves.
async fn use_stream(calling: &Connection, number: u64, mut dice: Dice) -> bool {
    let Ok((mut asking, mut answer)) = calling.open_bi().await else { return false };
    let sent = content(number, dice.roll(120_000) as usize + 1);
    let breaks_off = dice.roll(5) == 0;
    let half = if breaks_off { sent.len() / 2 } else { sent.len() };
    if asking.write_all(&sent[..half]).await.is_err() {
        return false;
    }
    if breaks_off {
        if dice.roll(2) == 0 {
            asking.reset();
        }
        return true;
    }
    asking.shutdown().await.expect("ended");
    let mut came = Vec::new();
    let is_whole = answer.read_to_end(&mut came).await.is_ok();
    assert!(!is_whole || came == sent, "stream {number}: {} of {} bytes, or others", came.len(), sent.len());
    is_whole
}

/// One connection with some streams at once; answers whether all was well with it.
async fn call(pair: Arc<Pair>, to: SocketAddr, seed: u64) -> bool {
    let mut dice = Dice(seed);
    let calling = pair.call_at(to, Kind::Bulk);
    if dice.roll(6) == 0 {
        return true;
    }
    if calling.established().await.is_err() {
        return false;
    }
    let mut streams = JoinSet::new();
    for number in 0..dice.roll(6) + 1 {
        let (calling, dice) = (calling.clone(), Dice(dice.roll(u64::MAX)));
        streams.spawn(async move { use_stream(&calling, number, dice).await });
    }
    if dice.roll(6) == 0 {
        let _first = streams.join_next().await;
        return true;
    }
    let is_well = streams.join_all().await.into_iter().all(|is_well| is_well);
    assert_eq!(calling.waiting(), 0, "nobody uses it any more");
    is_well
}

/// Now and then the kernel has no room for a few packets.
async fn have_no_room(ends: [Endpoint; 2], mut dice: Dice) {
    let mut now_and_then = tokio::time::interval(Duration::from_millis(5));
    loop {
        now_and_then.tick().await;
        let end = &ends[dice.roll(2) as usize];
        end.shared().socket.full.store(dice.roll(6) as usize, Ordering::Release);
    }
}

async fn live(seed: u64) {
    let pair = Arc::new(Pair::new());
    let ends = pair.ends.each_ref().map(|end| end.local_address().expect("an address"));
    let line = Line::between(ends, seed).await;
    let (to, is_bad) = (line.sides[0].local_addr().expect("an address"), Arc::clone(&line.is_bad));
    let mut disturbing = JoinSet::new();
    disturbing.spawn(line.run());
    disturbing.spawn(have_no_room(pair.ends.clone(), Dice(seed ^ 1)));
    let serving = tokio::spawn(serve(Arc::clone(&pair)));
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        calls.spawn(call(Arc::clone(&pair), to, seed.wrapping_mul(1_000) + number));
    }
    let well = in_time(calls.join_all()).await;
    // A line as bad as this one ends no connection.
    assert_eq!(well, [true; CALLS as usize], "seed {seed}");
    is_bad.store(false, Ordering::Release);
    // Whose end was lost on the way is found silent.
    for end in &pair.ends {
        in_time(end.idle()).await;
    }
    pair.ends.iter().for_each(|end| end.close(0_u32.into()));
    in_time(serving).await.expect("served");
    disturbing.shutdown().await;
    until(|| pair.ends.iter().all(|end| Arc::strong_count(end.shared()) == 1)).await;
}

#[test]
fn on_a_bad_line_everything_arrives_whole_and_in_the_end_nothing_is_left() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let worlds: Vec<_> = (0..WORLDS).map(|seed| tokio::spawn(live(seed))).collect();
        for world in worlds {
            tokio::time::timeout(4 * LIMIT, world).await.expect("in time").expect("lived");
        }
    });
}
