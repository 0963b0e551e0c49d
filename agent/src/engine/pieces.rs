//! The end of the log in pieces, each of which lies in memory once, however many hosts are sent it.
//!
//! Hosts that miss much stand at as many places as they are, and what is applied meanwhile has each miss something else. A
//! message for each of them would lie in the queues as often as there are hosts. So the log is cut where it was cut before,
//! and a host is sent the pieces from the one within which it stands: it passes by what it has.

use super::message::{Fed, Message};
use quorum::id::LogIndex;
use quorum::moment::Moment;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of entries that a host is sent; who misses more gets the ledger.
pub(super) const ENTRIES_BYTES_MAX: usize = 512 << 10;
/// So many bytes of entries are a piece.
const PIECE_BYTES: usize = 32 << 10;
/// No more bytes of entries than these are no piece yet, and are sent to each host anew.
pub(super) const LOOSE_BYTES_MAX: usize = 4 << 10;
/// What nobody was sent for so long isn't kept.
const KEPT: Duration = Duration::from_secs(5);

/// What a voter has to give.
pub(super) trait Log {
    /// How far it is applied.
    fn applied(&self) -> LogIndex;
    /// The entries behind `after`, up to `until`; `None` if they are compacted away, or more than so many bytes.
    fn entries(&self, after: LogIndex, until: LogIndex, bytes_max: usize) -> Option<Vec<Fed>>;
    /// The ledger as it stands; nothing, if it can't be encoded.
    fn parts(&self) -> Vec<Message>;
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Each begins where the one before it ends.
    run: VecDeque<Piece>,
    whole: Option<Whole>,
    used: Option<Moment>,
}

#[derive(Debug)]
struct Piece {
    after: LogIndex,
    until: LogIndex,
    bytes: usize,
    message: Arc<Message>,
}

/// The ledger as it stood.
#[derive(Debug)]
struct Whole {
    at: LogIndex,
    made: Moment,
    messages: Vec<Arc<Message>>,
}

impl Pieces {
    /// What a host that stands at `after` is sent to stand where the log ends: entries or, if it misses too many, the ledger.
    pub(super) fn of(&mut self, log: &impl Log, after: LogIndex, now: Moment) -> Vec<Arc<Message>> {
        self.forget_unused(now);
        self.used = Some(now);
        self.entries(log, after).unwrap_or_else(|| self.whole(log, now))
    }

    /// What nobody was sent for a while goes.
    pub(super) fn forget_unused(&mut self, now: Moment) {
        if self.used.is_some_and(|used| now.held_since(used) >= KEPT) {
            *self = Self::default();
        }
    }

    fn whole(&mut self, log: &impl Log, now: Moment) -> Vec<Arc<Message>> {
        if let Some(Whole { at, made, messages }) = &self.whole
            && now.held_since(*made) < KEPT
        {
            let (at, messages) = (*at, messages.clone());
            if let Some(since) = self.entries(log, at) {
                return [messages, since].concat();
            }
        }
        let messages: Vec<_> = log.parts().into_iter().map(Arc::new).collect();
        self.whole = Some(Whole { at: log.applied(), made: now, messages: messages.clone() });
        messages
    }

    fn entries(&mut self, log: &impl Log, after: LogIndex) -> Option<Vec<Arc<Message>>> {
        self.reach_on(log);
        self.reach_back(log, after)?;
        let end = self.run.back().map_or(after, |piece| piece.until);
        let loose = log.entries(end, log.applied(), LOOSE_BYTES_MAX)?;
        let loose = (!loose.is_empty()).then(|| committed(end, loose));
        let run = self.run.iter().filter(|piece| piece.until > after);
        Some(run.map(|piece| Arc::clone(&piece.message)).chain(loose).collect())
    }

    /// What was applied since is cut, unless it is little.
    fn reach_on(&mut self, log: &impl Log) {
        let Some(end) = self.run.back().map(|piece| piece.until) else { return };
        match log.entries(end, log.applied(), ENTRIES_BYTES_MAX) {
            Some(since) if bytes_of(&since) > LOOSE_BYTES_MAX => self.run.extend(cut(end, since)),
            Some(_) => {}
            None => self.run.clear(),
        }
        // Who stands there would be sent more than is sent.
        while self.bytes() > ENTRIES_BYTES_MAX {
            self.run.pop_front();
        }
    }

    fn reach_back(&mut self, log: &impl Log, after: LogIndex) -> Option<()> {
        let start = self.run.front().map_or(log.applied(), |piece| piece.after);
        if after < start {
            let room = ENTRIES_BYTES_MAX.saturating_sub(self.bytes());
            for piece in cut(after, log.entries(after, start, room)?).into_iter().rev() {
                self.run.push_front(piece);
            }
        }
        Some(())
    }

    fn bytes(&self) -> usize {
        self.run.iter().map(|piece| piece.bytes).sum()
    }
}

/// Entries as one message.
pub(super) fn committed(after: LogIndex, entries: Vec<Fed>) -> Arc<Message> {
    Arc::new(Message::Committed { first: LogIndex(after.0 + 1), entries })
}

/// What entries weigh.
pub(super) fn bytes_of(entries: &[Fed]) -> usize {
    entries.iter().map(weight).sum()
}

fn weight(entry: &Fed) -> usize {
    match entry {
        Fed::Empty(_) | Fed::Membership(..) => 0,
        Fed::Entry(_, data) => data.as_slice().len(),
    }
}

fn cut(mut after: LogIndex, entries: Vec<Fed>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    let mut rest = entries.into_iter().peekable();
    while let Some(entry) = rest.next() {
        bytes += weight(&entry);
        piece.push(entry);
        if bytes >= PIECE_BYTES || rest.peek().is_none() {
            let until = LogIndex(after.0 + piece.len() as u64);
            let message = committed(after, std::mem::take(&mut piece));
            pieces.push(Piece { after, until, bytes: std::mem::take(&mut bytes), message });
            after = until;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::codec::Blob;
    use quorum::id::Term;

    /// Entries of a kilobyte each, the first of them compacted away.
    #[derive(Default)]
    struct Toy {
        applied: u64,
        compacted: u64,
    }

    impl Log for Toy {
        fn applied(&self) -> LogIndex {
            LogIndex(self.applied)
        }

        fn entries(&self, after: LogIndex, until: LogIndex, bytes_max: usize) -> Option<Vec<Fed>> {
            let count = usize::try_from(until.0 - after.0).expect("few");
            let fits = after.0 >= self.compacted && count << 10 <= bytes_max;
            fits.then(|| vec![Fed::Entry(Term(1), Blob::from(vec![0; 1 << 10])); count])
        }

        fn parts(&self) -> Vec<Message> {
            vec![Message::Snapshot { index: self.applied(), part: 0, parts: 1, bytes: Blob::from(&b"all"[..]) }]
        }
    }

    fn at(ms: u64) -> Moment {
        Moment::from_ns(1_000_000_000 + ms * 1_000_000)
    }

    /// Where a host stands that stood at `after` and took these.
    fn taken(after: u64, messages: &[Arc<Message>]) -> u64 {
        messages.iter().fold(after, |stands, message| match message.as_ref() {
            Message::Committed { first, entries } => {
                assert!(first.0 <= stands + 1, "a gap behind {stands}: {first:?}");
                stands.max(first.0 + entries.len() as u64 - 1)
            }
            Message::Snapshot { index, .. } => index.0.max(stands),
            other => panic!("{other:?}"),
        })
    }

    /// Sends to a host at `after`, which must then stand where the log ends; and how many of the messages are those that
    /// another was sent.
    fn sent(
        pieces: &mut Pieces,
        (log, after): (&Toy, u64),
        now: u64,
        other: &[Arc<Message>],
    ) -> (Vec<Arc<Message>>, usize) {
        let messages = pieces.of(log, LogIndex(after), at(now));
        assert_eq!(taken(after, &messages), log.applied, "from {after}");
        let shared = messages.iter().filter(|message| other.iter().any(|other| Arc::ptr_eq(message, other))).count();
        (messages, shared)
    }

    #[test]
    fn hosts_at_different_places_are_sent_the_same_pieces_while_the_log_grows() {
        let (mut pieces, mut log) = (Pieces::default(), Toy { applied: 100, compacted: 0 });
        let (first, _) = sent(&mut pieces, (&log, 0), 0, &[]);
        assert_eq!(first.len(), 4, "of 32 kilobytes each");
        assert_eq!(sent(&mut pieces, (&log, 40), 10, &first).1, 3, "from the one that it stands within");
        log.applied = 104;
        let (second, shared) = sent(&mut pieces, (&log, 0), 20, &first);
        assert_eq!((second.len(), shared), (5, 4), "a little of its own");
        log.applied = 105;
        let (third, shared) = sent(&mut pieces, (&log, 0), 30, &first);
        assert_eq!((third.len(), shared), (5, 4));
        assert_eq!(sent(&mut pieces, (&log, 101), 40, &third).1, 1, "what came since is a piece");
        assert_eq!(sent(&mut pieces, (&log, 105), 40, &third).0.len(), 0);
    }

    #[test]
    fn who_stands_before_all_pieces_is_sent_more_of_them_or_the_ledger() {
        let (mut pieces, mut log) = (Pieces::default(), Toy { applied: 100, compacted: 30 });
        let (first, _) = sent(&mut pieces, (&log, 60), 0, &[]);
        let (earlier, shared) = sent(&mut pieces, (&log, 40), 10, &first);
        assert_eq!((earlier.len(), shared), (3, 2));
        assert_eq!(sent(&mut pieces, (&log, 40), 10, &earlier).1, 3);
        log.applied = 103;
        let (whole, shared) = sent(&mut pieces, (&log, 7), 20, &earlier);
        assert_eq!((whole.len(), shared), (1, 0), "what it lacks is compacted away");
        log.applied = 106;
        let (again, shared) = sent(&mut pieces, (&log, 0), 30, &whole);
        assert_eq!((again.len(), shared), (2, 1), "the same ledger, and what came since");
        log.compacted = 106;
        assert_eq!(sent(&mut pieces, (&log, 40), 40, &earlier).1, 3, "it is kept in pieces");
    }

    #[test]
    fn a_host_is_sent_no_more_entries_than_the_bound() {
        let (mut pieces, mut log) = (Pieces::default(), Toy { applied: 500, compacted: 0 });
        let (first, _) = sent(&mut pieces, (&log, 0), 0, &[]);
        assert_eq!(first.len(), 500_usize.div_ceil(32));
        for applied in 501..=1_500 {
            log.applied = applied;
            sent(&mut pieces, (&log, applied - 100), 0, &[]);
            assert!(pieces.bytes() <= ENTRIES_BYTES_MAX && !pieces.run.is_empty());
        }
        let (whole, _) = sent(&mut pieces, (&log, 0), 10, &[]);
        assert!(matches!(*whole[0], Message::Snapshot { .. }) && whole.len() == 1, "{whole:?}");
        log.applied = 5_000;
        sent(&mut pieces, (&log, 4_990), 20, &[]);
        let (whole, shared) = sent(&mut pieces, (&log, 0), 30, &whole);
        assert_eq!((whole.len(), shared), (1, 0), "more came since than is sent");
    }

    #[test]
    fn what_nobody_was_sent_for_a_while_is_not_kept_and_no_ledger_is_old() {
        let (mut pieces, log) = (Pieces::default(), Toy { applied: 100, compacted: 50 });
        let (mut whole, mut shared) = sent(&mut pieces, (&log, 0), 0, &[]);
        assert_eq!(shared, 0);
        (whole, shared) = sent(&mut pieces, (&log, 0), 4_999, &whole);
        assert_eq!(shared, 1);
        (_, shared) = sent(&mut pieces, (&log, 0), 5_000, &whole);
        assert_eq!(shared, 0, "another one");
        pieces.forget_unused(at(9_999));
        assert!(pieces.whole.is_some());
        pieces.forget_unused(at(10_000));
        assert!(pieces.whole.is_none() && pieces.run.is_empty());
    }
}
