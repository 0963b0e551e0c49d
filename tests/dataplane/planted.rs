//! What the claims of the data plane are worth: each of these faults, planted in the driver, breaks the one that it is
//! about.

use super::pair::Pair;
use antipode::replication::contract::check;
use quorum::id::Epoch;

/// A planted fault, and a part of the claim that it breaks.
const TABLE: [(&str, &str); 10] = [
    ("data.born_twice", "a copy isn't born twice"),
    ("data.overwritten_as_standby", "opened afresh is a mixture"),
    ("data.mixture_promoted", "isn't promoted"),
    ("data.standby_of_any_epoch", "a word from another epoch"),
    ("data.another_reign_speaks", "only the reign's own epoch may mirror"),
    ("data.record_goes_back", "a generation doesn't go back"),
    ("data.older_source_let_in", "an export for an older epoch is refused"),
    ("data.older_epoch_promoted", "a grant of an older epoch opens nothing"),
    ("data.any_copy_promoted", "isn't promoted"),
    ("data.export_without_epoch", "an older source finds nothing that it knows"),
];

#[tokio::test]
async fn every_fault_planted_in_a_driver_breaks_a_claim_of_the_contract() {
    let mut wrong = Vec::new();
    for (fault, expected) in TABLE {
        let _planted = quorum::mutants::plant(fault);
        let pair = Pair::new(Epoch(41)).await;
        match check(&pair).await {
            Err(claim) if claim.contains(expected) => println!("{fault}: {claim}"),
            other => wrong.push(format!("{fault}: expected {expected:?}, got {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
