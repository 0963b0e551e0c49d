//! What the transport is told about resting, and whether it has to be told anew.

use crate::driver::transport::{Grid, Rest};
use crate::engine::Resting;
use quorum::moment::Moment;
use std::time::{Duration, Instant};

/// How the transport was last told to rest. Begins with not at all.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// How, and where between two multiples of Δ beats left then.
    rest: Option<(Resting, u128)>,
}

impl Told {
    /// What the transport is to be told, if that is news. It looks at what came in together with the beats, and a few times
    /// between two of them.
    #[expect(clippy::option_option, reason = "news, which may be that it rests no more")]
    pub(super) fn news(
        &mut self,
        rest: Option<Resting>,
        next_beat: Moment,
        now: impl FnOnce() -> (Moment, Instant),
    ) -> Option<Option<Rest>> {
        // A beat that was hastened has those after it leave at other moments than those before.
        let rest = rest.map(|rest| (rest, u128::from(next_beat.boot_ns) % rest.beat.as_nanos().max(1)));
        if self.rest == rest {
            return None;
        }
        self.rest = rest;
        let (moment, instant) = now();
        let from = instant + Duration::from_nanos(next_beat.boot_ns.saturating_sub(moment.boot_ns));
        let looks = |every| Grid { from, every };
        Some(rest.map(|(rest, _)| Rest { looks: rest.look.map(looks), beats_late: rest.beat }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(50);

    #[test]
    fn the_transport_is_looked_at_with_the_beats_also_after_one_of_them_was_hastened() {
        let began = Instant::now();
        let beat = |ms: u64| Moment::from_ns(ms * 1_000_000);
        let at = |ms: u64| move || (beat(ms), began + Duration::from_millis(ms));
        let resting = Resting { look: Some(BEAT), beat: BEAT };
        let looks_from = |ms: u64| {
            let looks = Some(Grid { from: began + Duration::from_millis(ms), every: BEAT });
            Some(Some(Rest { looks, beats_late: BEAT }))
        };
        let mut told = Told::default();
        assert_eq!(told.news(None, beat(1_000), at(990)), None);
        assert_eq!(told.news(Some(resting), beat(1_010), at(1_000)), looks_from(1_010));
        assert_eq!(told.news(Some(resting), beat(1_060), at(1_011)), None, "as before");
        assert_eq!(told.news(Some(resting), beat(1_085), at(1_035)), looks_from(1_085), "one was hastened to 1,035");
        assert_eq!(told.news(Some(resting), beat(1_135), at(1_086)), None);
        assert_eq!(told.news(None, beat(1_185), at(1_140)), Some(None));
    }
}
