//! What the other agent of a comparison says, as a fuzzer makes it up.

use super::kept::described;
use super::wire::{Ask, Begin, Tell, receive, send};
use crate::replication::record::Record;
use quorum::codec::Blob;
use quorum::id::{Epoch, Era};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// Frames one after the other, to the standby or to the source: the first byte says to whom. Also the files beside data.
pub(crate) fn frames(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    match which & 0x03 {
        0 => heard::<Ask>(bytes),
        1 => heard::<Tell>(bytes),
        2 => Record::understand(bytes).is_ok(),
        _ => described(bytes).is_ok(),
    }
}

fn heard<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let listening = async {
        let mut wire = tokio::io::join(bytes, tokio::io::sink());
        let mut count = 0;
        while let Ok(message) = receive::<T>(&mut wire).await {
            let mut sent = Vec::new();
            send(&mut tokio::io::join(tokio::io::empty(), &mut sent), &message)
                .await
                .expect("what was heard can be said");
            let again: T = receive(&mut tokio::io::join(sent.as_slice(), tokio::io::sink())).await.expect("and heard");
            assert_eq!(again, message);
            count += 1;
        }
        count
    };
    RUNTIME.with(|runtime| runtime.block_on(listening)) > 0
}

/// One of each message.
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let group = "erp".parse().expect("a name");
    let begin = Begin { group, volume: "root".into(), epoch: Epoch::in_era(Era(1), 4), bytes: 1 << 30 };
    let asks = [
        ("resync-begin", Ask::Begin(begin)),
        ("resync-hash", Ask::Hash { first: 300, count: 256 }),
        ("resync-replace", Ask::Replace { chunk: 70_000, bytes: Blob::from(vec![7; 40]) }),
        ("resync-settle", Ask::Settle),
        ("resync-end", Ask::End),
    ];
    let tells = [
        ("resync-ready", Tell::Ready),
        ("resync-hashes", Tell::Hashes { first: 300, hashes: vec![[5; 32], [6; 32]] }),
        ("resync-settled", Tell::Settled),
        ("resync-ended", Tell::Ended { kept_bytes: 1 << 20 }),
        ("resync-refused", Tell::Refused { because: "another epoch".into() }),
    ];
    let asks = asks.iter().map(|(name, ask)| (*name, framed(ask)));
    asks.chain(tells.iter().map(|(name, tell)| (*name, framed(tell)))).collect()
}

fn framed<T: Serialize>(message: &T) -> Vec<u8> {
    let mut sent = Vec::new();
    let sending = async { send(&mut tokio::io::join(tokio::io::empty(), &mut sent), message).await };
    RUNTIME.with(|runtime| runtime.block_on(sending)).expect("a message fits its frame");
    sent
}

pub(crate) fn frame_seeds() -> Vec<Vec<u8>> {
    let (asks, tells): (Vec<_>, Vec<_>) = (0..).zip(samples()).partition(|(number, _)| *number < 5);
    let joined = |which: u8, all: Vec<(i32, (&str, Vec<u8>))>| {
        all.into_iter().fold(vec![which], |mut whole, (_, (_, frame))| {
            whole.extend(frame);
            whole
        })
    };
    let record =
        br#"{"version":1,"group":"erp","volume":"root","generation":3,"epoch":7,"role":"standby","was_source":false}"#;
    let set = br#"{"version":1,"begun_unix_s":5,"origin":{"group":"erp","volume":"root","host":"tk-1","generation":1,"replaced_under":2,"volume_bytes":4096}}"#;
    vec![joined(0, asks), joined(1, tells), [&[2], record.as_slice()].concat(), [&[3], set.as_slice()].concat()]
}
