//! Watches a running workload and its mirrors, and tells what the engine didn't ask for.

use super::build::{Built, Data};
use super::data::STALL;
use crate::driver::runtime::Incoming;
use crate::engine::{Sight, Work};
use crate::replication::{Manner, MirrorState, Mode};
use crate::workload::Presence;
use quorum::mutants;
use std::time::Duration;
use tokio::sync::mpsc;

/// An asynchronous mirror that wasn't seen even for this long is evened out.
const EVEN_WITHIN: Duration = Duration::from_secs(2);
/// The workload stands still for it at most this long: some round trips.
const EVEN_PAUSE_MAX: Duration = Duration::from_millis(400);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An asynchronous mirror that lives by itself and can't be asked for this long is given up: nothing waits for it, and its
/// adapter may have hung for good.
const SILENT_MAX: Duration = Duration::from_secs(20);

/// Whether a workload lives, by what is seen of it.
pub(super) struct Life {
    was_running: bool,
}

impl Life {
    /// Before a start nothing has to be there. Whatever else is ordered is ordered of what was seen running: it may end
    /// before it is looked at again.
    pub(super) fn at(work: &Work) -> Self {
        Self { was_running: !matches!(work, Work::Start { .. }) }
    }

    /// Whether it ran and is gone.
    fn is_over(&mut self, seen: &Presence) -> bool {
        self.was_running |= matches!(seen, Presence::Running { .. });
        self.was_running && matches!(seen, Presence::Absent)
    }
}

/// Looks until it is aborted. Tells when a workload that ran has ended. What is seen of the mirrors is told after every
/// look: what was told once may have come just before the engine took the mirror for begun.
pub(super) async fn watch(built: &Built, mut life: Life, inbox: &mpsc::Sender<Incoming>) {
    let group = built.config.name.clone();
    let mut was_synced = false;
    let mut evening = Evening::default();
    let mut silence = Silence::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let seen = built.workload.observe().await;
        if life.is_over(&seen) {
            let sight = Sight::Exited { because: "its process is gone".into() };
            let _gone = inbox.send(Incoming::Seen(group, sight)).await;
            return;
        }
        if !matches!(seen, Presence::Running { .. }) {
            continue;
        }
        let asked = tokio::time::Instant::now();
        let seen = look(built).await;
        let silent = silence.note(is_silent(built, &seen), (asked, tokio::time::Instant::now()));
        let silent = silent.map(|since| Sight::MirrorAway { since });
        let Some(sight) = silent.or_else(|| together(&seen, was_synced)) else { continue };
        if let Sight::Lag { behind, .. } = &sight {
            was_synced = true;
            evening.follow(built, *behind).await;
        }
        if inbox.send(Incoming::Seen(group.clone(), sight)).await.is_err() {
            return;
        }
    }
}

/// Since when a mirror that can be given up hasn't answered.
#[derive(Default)]
struct Silence {
    since: Option<tokio::time::Instant>,
}

impl Silence {
    /// Notes a look that was begun and ended then; tells for how long there was no answer once that is too long.
    fn note(
        &mut self,
        is_silent: bool,
        (begun, ended): (tokio::time::Instant, tokio::time::Instant),
    ) -> Option<Duration> {
        if !is_silent || mutants::on("data.silent_mirror_kept") {
            self.since = None;
            return None;
        }
        let silent = ended.duration_since(*self.since.get_or_insert(begun));
        (silent >= SILENT_MAX).then_some(silent)
    }
}

/// Whether a mirror didn't answer for which no write waits and which is no part of the workload. A copy that counts is never
/// left behind on such a ground: a mirror that can't be asked may well hold every write back, and have them all.
fn is_silent(built: &Built, seen: &[(Mode, Option<MirrorState>)]) -> bool {
    built.data.iter().zip(seen).any(|(data, (mode, state))| {
        *mode == Mode::Async && state.is_none() && data.driver.manner() == Manner::ByItself
    })
}

/// Evens asynchronous mirrors out that are never seen even: under steady writing their lag would be unknown for ever.
#[derive(Default)]
struct Evening {
    failures: u32,
    next: Option<tokio::time::Instant>,
}

impl Evening {
    async fn follow(&mut self, built: &Built, behind: Option<Duration>) {
        let now = tokio::time::Instant::now();
        let is_due = behind.is_none_or(|behind| behind >= EVEN_WITHIN) && self.next.is_none_or(|next| now >= next);
        if !is_due {
            return;
        }
        let mut is_even = true;
        // A mirror that lives by itself measures by itself, and evening it out may take longer than a look should.
        let measured = |data: &&Data| data.mode == Mode::Async && data.driver.manner() == Manner::WithWorkload;
        for data in built.data.iter().filter(measured) {
            is_even &= matches!(data.driver.even_out(EVEN_PAUSE_MAX).await, Ok(true));
        }
        self.failures = if is_even { 0 } else { self.failures.saturating_add(1) };
        // A standby that is slow costs the workload ever fewer pauses.
        self.next = Some(now + EVEN_WITHIN.saturating_mul(1 << self.failures.min(5)));
    }
}

/// What is seen of each volume's mirror; `None` of one that can't be asked.
async fn look(built: &Built) -> Vec<(Mode, Option<MirrorState>)> {
    let mut seen = Vec::new();
    for data in &built.data {
        seen.push((data.mode, data.driver.mirror_state(STALL).await.ok()));
    }
    seen
}

/// The group's mirrors taken together: one that ended or is away makes the group's so; all in step, the worst lag
/// counts. `None` while they are being made equal, or can't be asked.
fn together(seen: &[(Mode, Option<MirrorState>)], was_synced: bool) -> Option<Sight> {
    let (mut lag, mut is_open) = ((Some(Duration::ZERO), 0), seen.is_empty());
    let (mut away, mut ended): (Option<Duration>, Option<String>) = (None, None);
    for (mode, state) in seen {
        match state {
            Some(MirrorState::Synced { pending_bytes, behind }) => {
                // What is pending under a synchronous mirror was answered to nobody.
                let behind = if *mode == Mode::Sync { Some(Duration::ZERO) } else { *behind };
                lag = (lag.0.zip(behind).map(|(worst, behind)| worst.max(behind)), lag.1 + pending_bytes);
            }
            Some(MirrorState::Away { since, .. }) => away = Some(away.unwrap_or_default().max(*since)),
            // It ends by itself only by an error, perhaps before it was ever seen in step.
            Some(MirrorState::Detached { because: Some(because) }) if !mutants::on("data.early_end_unseen") => {
                ended = Some(because.clone());
            }
            Some(MirrorState::Detached { .. }) if was_synced => ended = Some("it is gone".into()),
            Some(MirrorState::Detached { .. } | MirrorState::Copying { .. }) | None => is_open = true,
        }
    }
    match (ended, away) {
        (Some(because), _) => Some(Sight::MirrorEnded { because }),
        (None, Some(since)) => Some(Sight::MirrorAway { since }),
        (None, None) if is_open => None,
        (None, None) => Some(Sight::Lag { behind: lag.0, bytes: lag.1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Begin;
    use quorum::id::{Epoch, HostEpoch};

    const STEP: MirrorState = MirrorState::Synced { pending_bytes: 3, behind: None };

    fn ended(because: Option<&str>) -> MirrorState {
        MirrorState::Detached { because: because.map(str::to_owned) }
    }

    #[test]
    fn a_mirror_that_ended_before_it_was_ever_seen_in_step_is_told() {
        let seen = |because| [(Mode::Sync, Some(STEP)), (Mode::Sync, Some(ended(because)))];
        let told = together(&seen(Some("No space left on device")), false);
        assert_eq!(told, Some(Sight::MirrorEnded { because: "No space left on device".into() }));
        assert_eq!(together(&seen(None), false), None, "none was begun yet");
        assert!(matches!(together(&seen(None), true), Some(Sight::MirrorEnded { .. })), "it was there before");
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn an_end_that_is_only_told_of_a_mirror_seen_in_step_is_noticed() {
        let _planted = mutants::plant("data.early_end_unseen");
        assert_eq!(together(&[(Mode::Sync, Some(ended(Some("No space left on device"))))], false), None);
    }

    #[test]
    fn the_worst_of_all_mirrors_counts() {
        let away = MirrorState::Away { since: Duration::from_secs(3), pending_bytes: 1, was_whole: true };
        let since = Duration::from_secs(3);
        let told = together(&[(Mode::Sync, Some(STEP)), (Mode::Sync, Some(away.clone()))], true);
        assert_eq!(told, Some(Sight::MirrorAway { since }));
        let told = together(&[(Mode::Sync, Some(away)), (Mode::Sync, Some(ended(Some("it failed"))))], true);
        assert!(matches!(told, Some(Sight::MirrorEnded { .. })), "{told:?}");
        assert_eq!(
            together(&[(Mode::Sync, Some(STEP))], false),
            Some(Sight::Lag { behind: Some(Duration::ZERO), bytes: 3 })
        );
        assert_eq!(together(&[(Mode::Async, Some(STEP))], false), Some(Sight::Lag { behind: None, bytes: 3 }));
        assert_eq!(together(&[(Mode::Sync, Some(STEP)), (Mode::Sync, None)], true), None);
        assert_eq!(together(&[], true), None);
    }

    /// Seconds of looks that had no answer, and whether the mirror was given up after each.
    fn given_up(looks: &[(u64, bool)]) -> Vec<bool> {
        let (mut silence, mut now) = (Silence::default(), tokio::time::Instant::now());
        let look = |(seconds, is_silent): &(u64, bool)| {
            let begun = now;
            now += Duration::from_secs(*seconds);
            silence.note(*is_silent, (begun, now)).is_some()
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn a_mirror_that_does_not_answer_for_long_is_given_up_and_one_that_answers_in_between_is_not() {
        assert_eq!(given_up(&[(8, true), (8, true), (8, true)]), [false, false, true]);
        assert_eq!(given_up(&[(24, true)]), [true], "the look itself took so long");
        assert_eq!(given_up(&[(8, true), (8, true), (1, false), (8, true)]), [false; 4]);
    }

    #[test]
    #[cfg(feature = "mutants")]
    fn a_silent_mirror_that_is_kept_for_ever_is_noticed() {
        let _planted = mutants::plant("data.silent_mirror_kept");
        assert_eq!(given_up(&[(8, true), (8, true), (8, true)]), [false; 3]);
    }

    #[test]
    fn a_workload_that_ended_before_it_was_looked_at_again_is_noticed_and_one_that_starts_is_waited_for() {
        let epoch = Epoch(1);
        let mut served = Life::at(&Work::Probe { epoch });
        assert!(served.is_over(&Presence::Absent), "it was seen running before it was probed");
        let mut starts = Life::at(&Work::Start { epoch, host_epoch: HostEpoch(1) });
        assert!(!starts.is_over(&Presence::Absent), "it isn't there yet");
        assert!(!starts.is_over(&Presence::Unknown { because: "busy".into() }));
        assert!(!starts.is_over(&Presence::Running { epoch, host_epoch: HostEpoch(1), begin: Begin::Running }));
        assert!(starts.is_over(&Presence::Absent));
    }
}
