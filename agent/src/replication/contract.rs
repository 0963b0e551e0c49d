//! What every kind of replication must do, tried on the real thing.
//!
//! A kind passes by giving a [`Bench`]; nothing here knows any kind. Run by `tests/dataplane.rs`.

use super::record::Role;
use super::{
    AcceptedLoss, ExportBegin, ExportOrder, MirrorBegin, MirrorOrder, MirrorState, Mode, PromoteOrder, Replication,
    ReplicationError,
};
use crate::workload::Doing;
use quorum::id::{Epoch, Generation};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// A kind set up to be tried: a source whose volume is in use, and a blank standby.
pub trait Bench: Sync {
    /// A new driver for the source's copy; drivers made before are no longer used.
    fn source(&self) -> Box<dyn Replication>;
    /// A new driver for the standby's copy.
    fn standby(&self) -> Box<dyn Replication>;
    /// An order to take in what the source of this epoch sends.
    fn export(&self, epoch: Epoch, begin: ExportBegin) -> ExportOrder;
    /// An order to send to the standby.
    fn mirror(&self, epoch: Epoch, begin: MirrorBegin) -> MirrorOrder;
    /// Fills a block of the source's volume with this byte, as its user would.
    fn write(&self, block: u64, byte: u8) -> Doing<'_, Result<(), String>>;
    /// The byte that a block of the standby's copy begins with, read past every cache.
    fn standby_byte(&self, block: u64) -> u8;
}

const REIGN: Epoch = Epoch(41);
const BEFORE: Epoch = Epoch(40);
const NEXT: Epoch = Epoch(42);
const AFTER: Epoch = Epoch(43);
const FIRST: Generation = Generation(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts a kind through the contract of [`Replication`].
///
/// # Errors
/// The first claim that doesn't hold, with what was seen.
pub async fn check(bench: &dyn Bench) -> Result<(), String> {
    a_copy_is_born_once(bench).await?;
    an_export_makes_the_copy_a_mixture(bench).await?;
    a_mirror_brings_everything(bench).await?;
    a_new_driver_finds_the_mirror(bench).await?;
    a_release_ends_the_mirror(bench).await?;
    an_older_source_is_refused(bench).await?;
    a_promotion_checks_what_the_copy_is(bench).await?;
    an_older_source_finds_nothing(bench).await
}

fn claim(holds: bool, claim: &str, seen: &dyn Debug) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{claim}; seen: {seen:?}")) }
}

fn role_of(driver: &dyn Replication) -> Result<Option<Role>, String> {
    driver.record().map(|record| record.map(|record| record.role)).map_err(|error| error.to_string())
}

/// Waits until the driver says that the standby has everything that was written before this call. Under
/// [`Mode::Async`] the measured lag says it: nothing answered that is older than that is missing.
async fn until_even(bench: &dyn Bench, driver: &dyn Replication) -> Result<(), String> {
    let (start, mode) = (Instant::now(), bench.mirror(REIGN, MirrorBegin::Whole).mode);
    loop {
        if mode == Mode::Async {
            let evened = driver.even_out(PATIENCE).await;
            claim(evened.is_ok(), "a mirror can be evened out", &evened)?;
        }
        let state = driver.mirror_state(PATIENCE).await;
        match (mode, &state) {
            (Mode::Sync, Ok(MirrorState::Synced { pending_bytes: 0, .. })) => return Ok(()),
            (Mode::Async, Ok(MirrorState::Synced { behind: Some(behind), .. })) if *behind <= start.elapsed() => {
                return Ok(());
            }
            (_, Ok(MirrorState::Detached { .. }) | Err(_)) => {
                return claim(false, "a mirror goes on until it is even", &state);
            }
            (_, Ok(_)) => claim(start.elapsed() < PATIENCE, "a mirror becomes even", &state)?,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_copy_is_born_once(bench: &dyn Bench) -> Result<(), String> {
    let source = bench.source();
    claim(role_of(source.as_ref())?.is_none(), "a copy that was never used has no record", &source.record())?;
    for claimed in ["a copy can be adopted", "adopting twice succeeds"] {
        let adopted = source.adopt(REIGN, FIRST).await;
        claim(adopted.is_ok(), claimed, &adopted)?;
    }
    let again = source.adopt(REIGN, Generation(9)).await;
    claim(matches!(again, Err(ReplicationError::Refused { .. })), "a copy isn't born twice", &again)?;
    claim(role_of(source.as_ref())? == Some(Role::Source), "an adopted copy is the source", &source.record())
}

async fn an_export_makes_the_copy_a_mixture(bench: &dyn Bench) -> Result<(), String> {
    let standby = bench.standby();
    let opened = standby.open_export(&bench.export(REIGN, ExportBegin::Continue)).await;
    claim(opened.is_err(), "a copy that isn't a standby can't continue as one", &opened)?;
    for claimed in ["an export opens", "opening it twice succeeds"] {
        let promoted = standby.promote(&order(Generation(0), BEFORE, AcceptedLoss::Nothing)).await;
        claim(promoted.is_err(), "a mixture, and a copy that was never used, isn't promoted", &promoted)?;
        let opened = standby.open_export(&bench.export(REIGN, ExportBegin::Afresh)).await;
        claim(opened.is_ok(), claimed, &opened)?;
    }
    claim(role_of(standby.as_ref())? == Some(Role::Syncing), "from then on it is a mixture", &standby.record())?;
    for other in [BEFORE, NEXT] {
        let marked = standby.mark_standby(other, FIRST);
        claim(marked.is_err(), "a word from another epoch doesn't make it a standby", &marked)?;
    }
    Ok(())
}

async fn a_mirror_brings_everything(bench: &dyn Bench) -> Result<(), String> {
    bench.write(0, 0xa1).await?;
    let source = bench.source();
    let started = source.start_mirror(&bench.mirror(NEXT, MirrorBegin::Whole)).await;
    claim(matches!(started, Err(ReplicationError::Refused { .. })), "only the reign's own epoch may mirror", &started)?;
    for claimed in ["a mirror starts", "starting it twice succeeds"] {
        let started = source.start_mirror(&bench.mirror(REIGN, MirrorBegin::Whole)).await;
        claim(started.is_ok(), claimed, &started)?;
    }
    until_even(bench, source.as_ref()).await?;
    claim(bench.standby_byte(0) == 0xa1, "what was there before is at the standby", &bench.standby_byte(0))?;
    let standby = bench.standby();
    for claimed in ["a complete copy becomes a standby", "said twice it succeeds"] {
        let marked = standby.mark_standby(REIGN, FIRST);
        claim(marked.is_ok(), claimed, &marked)?;
    }
    claim(role_of(standby.as_ref())? == Some(Role::Standby), "and is recorded as one", &standby.record())
}

async fn a_new_driver_finds_the_mirror(bench: &dyn Bench) -> Result<(), String> {
    let source = bench.source();
    until_even(bench, source.as_ref()).await?;
    bench.write(1, 0xa2).await?;
    until_even(bench, source.as_ref()).await?;
    claim(bench.standby_byte(1) == 0xa2, "what is written later is at the standby", &bench.standby_byte(1))?;
    // A standby that was restarted goes on where it was.
    let opened = bench.standby().open_export(&bench.export(REIGN, ExportBegin::Continue)).await;
    claim(opened.is_ok(), "a standby can continue", &opened)?;
    bench.write(2, 0xa3).await?;
    until_even(bench, source.as_ref()).await?;
    claim(bench.standby_byte(2) == 0xa3, "and what is written then arrives", &bench.standby_byte(2))
}

async fn a_release_ends_the_mirror(bench: &dyn Bench) -> Result<(), String> {
    let source = bench.source();
    for claimed in ["a release succeeds", "a release said twice succeeds"] {
        let released = source.release_writes().await;
        claim(released.is_ok(), claimed, &released)?;
        let state = source.mirror_state(PATIENCE).await;
        claim(matches!(state, Ok(MirrorState::Detached { .. })), "a released mirror is detached", &state)?;
    }
    bench.write(1, 0xb2).await?;
    claim(bench.standby_byte(1) == 0xa2, "after it nothing reaches the standby", &bench.standby_byte(1))?;
    for claimed in ["a source can advance", "advancing twice succeeds"] {
        let advanced = source.advance(REIGN, Generation(2));
        claim(advanced.is_ok(), claimed, &advanced)?;
    }
    let back = source.advance(REIGN, FIRST);
    claim(back.is_err(), "a generation doesn't go back", &back)?;
    let standby = bench.standby();
    let opened = standby.open_export(&bench.export(REIGN, ExportBegin::Afresh)).await;
    claim(opened.is_ok(), "a standby opens afresh", &opened)?;
    let is_mixture = role_of(standby.as_ref())? == Some(Role::Syncing);
    claim(is_mixture, "a standby that is opened afresh is a mixture", &standby.record())?;
    standby.mark_standby(REIGN, FIRST).map_err(|error| error.to_string())
}

async fn an_older_source_is_refused(bench: &dyn Bench) -> Result<(), String> {
    let standby = bench.standby();
    let opened = standby.open_export(&bench.export(BEFORE, ExportBegin::Afresh)).await;
    claim(matches!(opened, Err(ReplicationError::Refused { .. })), "an export for an older epoch is refused", &opened)?;
    for claimed in ["an export closes", "closing it twice succeeds"] {
        let closed = standby.close_export(PATIENCE).await;
        claim(closed.is_ok(), claimed, &closed)?;
    }
    Ok(())
}

fn order(generation: Generation, not_before: Epoch, accepted: AcceptedLoss) -> PromoteOrder {
    PromoteOrder { epoch: NEXT, generation, not_before, accepted }
}

async fn a_promotion_checks_what_the_copy_is(bench: &dyn Bench) -> Result<(), String> {
    let standby = bench.standby();
    let older = PromoteOrder { epoch: BEFORE, ..order(FIRST, BEFORE, AcceptedLoss::Nothing) };
    let refusals = [
        (older, "a grant of an older epoch opens nothing"),
        (order(Generation(2), REIGN, AcceptedLoss::Nothing), "a copy of an older generation isn't promoted"),
        (order(FIRST, NEXT, AcceptedLoss::Nothing), "a copy of an older reign isn't promoted"),
        (
            order(Generation(0), REIGN, AcceptedLoss::Mixture),
            "a copy that is ahead isn't promoted, whatever was accepted",
        ),
    ];
    for (order, claimed) in refusals {
        let promoted = standby.promote(&order).await;
        claim(matches!(promoted, Err(ReplicationError::Refused { .. })), claimed, &promoted)?;
        claim(
            role_of(standby.as_ref())? == Some(Role::Standby),
            "a refused promotion changes nothing",
            &standby.record(),
        )?;
    }
    for claimed in ["a standby is promoted", "a promotion said twice succeeds"] {
        let promoted = standby.promote(&order(FIRST, REIGN, AcceptedLoss::Nothing)).await;
        claim(promoted.is_ok(), claimed, &promoted)?;
    }
    claim(role_of(standby.as_ref())? == Some(Role::Source), "a promoted copy is the source", &standby.record())?;
    let opened = standby.open_export(&bench.export(REIGN, ExportBegin::Afresh)).await;
    claim(matches!(opened, Err(ReplicationError::Refused { .. })), "the old source stays out", &opened)
}

/// What a source asks for names its epoch, so that one of an older epoch finds nothing, even where it is let in.
async fn an_older_source_finds_nothing(bench: &dyn Bench) -> Result<(), String> {
    let opened = bench.standby().open_export(&bench.export(AFTER, ExportBegin::Afresh)).await;
    claim(opened.is_ok(), "a source can become a standby", &opened)?;
    let started = bench.source().start_mirror(&bench.mirror(REIGN, MirrorBegin::Whole)).await;
    claim(started.is_err(), "an older source finds nothing that it knows", &started)
}
