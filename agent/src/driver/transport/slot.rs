//! The place of the one connection to a peer (for each path's beats, and for bulk), and who gets it.
//!
//! Invariant: at most one connection holds the place; whoever is put out of it is closed with a reason. Both ends
//! settle duplicates by the same rule ([`choose`]), so that they end up with the same connection.

use super::drive::Connection;
use super::event::{CloseCode, Path};
use super::quic::CARRIES_MESSAGES;
use super::tls::{self, Judged};
use quorum::id::HostName;
use quorum::moment::Moment;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// Two connections whose handshakes ended within this time of each other were set up from both ends at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// An identified connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) path: Path,
    pub(super) by_us: bool,
    pub(super) judged: Judged,
    /// Messages may ride on it beside beats.
    pub(super) carries_messages: bool,
    /// Held by every stream and user of a bulk connection.
    pub(super) in_use: Arc<()>,
    closed_as: OnceLock<CloseCode>,
}

impl Live {
    pub(super) fn new(connection: Connection, path: Path, by_us: bool, judged: Judged) -> Self {
        let carries_messages = tls::protocol(&connection).is_some_and(|name| name == CARRIES_MESSAGES);
        let (in_use, closed_as) = (Arc::new(()), OnceLock::new());
        Self { connection, path, by_us, judged, carries_messages, in_use, closed_as }
    }

    /// Closes it, for the reason given first.
    pub(super) fn close(&self, code: CloseCode) {
        let code = *self.closed_as.get_or_init(|| code);
        self.connection.close(code.var_int());
    }

    pub(super) fn closed_as(&self) -> Option<CloseCode> {
        self.closed_as.get().copied()
    }
}

/// Which of two connections to the same peer stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The one that holds the place.
    Old,
    /// The one that has just come up.
    New,
}

/// Settles a duplicate. `age` is how long the old one has been up, `by_us` who dialled each one.
///
/// The newer one wins: its dialler had lost the old one (it was restarted, or hears nothing on it). Only when both ends
/// dialled at once, and neither had lost anything, the one dialled by the host whose name sorts first wins.
pub(super) fn choose(old_by_us: bool, age: Duration, new_by_us: bool, we_sort_first: bool) -> Choice {
    let both_ways = old_by_us != new_by_us;
    if both_ways && age < AT_ONCE && new_by_us != we_sort_first { Choice::Old } else { Choice::New }
}

/// The place.
#[derive(Debug)]
pub(super) struct Slot {
    live: watch::Sender<Option<Arc<Live>>>,
}

impl Default for Slot {
    fn default() -> Self {
        Self { live: watch::Sender::new(None) }
    }
}

impl Slot {
    pub(super) fn current(&self) -> Option<Arc<Live>> {
        self.live.borrow().clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Live>>> {
        self.live.subscribe()
    }

    /// Puts `new` into the place if the rule says so, and closes the one that lost. Answers whether `new` holds it.
    pub(super) fn install(&self, new: &Arc<Live>, us: &HostName, them: &HostName) -> bool {
        let mut put_out = None;
        let installed = self.live.send_if_modified(|place| {
            if let Some(old) = place.as_ref().filter(|old| old.connection.close_reason().is_none()) {
                let age = new.judged.at.held_since(old.judged.at);
                if choose(old.by_us, age, new.by_us, us < them) == Choice::Old {
                    return false;
                }
            }
            put_out = place.replace(Arc::clone(new));
            true
        });
        match put_out {
            Some(old) => old.close(CloseCode::Superseded),
            None if installed => {}
            None => new.close(CloseCode::Duplicate),
        }
        installed
    }

    /// Clears the place if `gone` still holds it; answers whether it did.
    pub(super) fn clear(&self, gone: &Arc<Live>) -> bool {
        self.live.send_if_modified(|place| {
            let held = place.as_ref().is_some_and(|live| Arc::ptr_eq(live, gone));
            if held {
                *place = None;
            }
            held
        })
    }

    pub(super) fn close(&self, code: CloseCode) {
        if let Some(live) = self.current() {
            live.close(code);
        }
    }
}

/// What an observer last told the engine about one path, so that it never tells things in the wrong order.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) up: bool,
}

/// When beats were last heard on a path.
#[derive(Debug, Default)]
pub(super) struct Heard(std::sync::Mutex<Option<Moment>>);

impl Heard {
    pub(super) fn note(&self, at: Moment) {
        let mut heard = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *heard = (*heard).max(Some(at));
    }

    pub(super) fn last(&self) -> Option<Moment> {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::from_millis(3);
    const OLD: Duration = Duration::from_secs(60);

    #[test]
    fn the_newer_of_two_connections_from_the_same_end_wins() {
        for (by_us, age, first) in [(true, YOUNG, true), (false, YOUNG, true), (true, OLD, false), (false, OLD, false)]
        {
            assert_eq!(choose(by_us, age, by_us, first), Choice::New);
        }
    }

    #[test]
    fn a_peer_that_dials_long_after_has_lost_the_old_connection() {
        assert_eq!(choose(true, OLD, false, true), Choice::New);
        assert_eq!(choose(false, OLD, true, false), Choice::New);
    }

    #[test]
    fn when_both_dial_at_once_both_keep_the_one_dialled_by_the_first_name() {
        // For each order in which the two connections may come up at each end: `a` sorts first, and dialled one.
        for a_sees_own_first in [true, false] {
            for b_sees_own_first in [true, false] {
                let kept_at = |own_first: bool, sorts_first: bool| {
                    let (old, new) = (own_first, !own_first);
                    match choose(old, YOUNG, new, sorts_first) {
                        Choice::Old => old,
                        Choice::New => new,
                    }
                };
                assert!(kept_at(a_sees_own_first, true), "a keeps the one that it dialled");
                assert!(!kept_at(b_sees_own_first, false), "b keeps the one that it didn't dial");
            }
        }
    }
}
