//! Who waits for what of one connection.

use quinn_proto::{Dir, StreamId};
use std::task::Waker;

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The end of the handshake.
    Established,
    /// The end of the connection.
    Closed,
    /// A stream that the peer opened.
    Opened(Dir),
    /// The peer takes one more stream.
    Available(Dir),
    /// Something to read.
    Readable(StreamId),
    /// Room to write.
    Writable(StreamId),
    /// All that was written has arrived, or the peer wants no more of it.
    Arrived(StreamId),
}

/// Each is told once; whoever still waits asks again. A thousand connections have a handful each, so they lie in a row.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    number: u64,
    waiting: Vec<(What, u64, Waker)>,
}

impl Waiters {
    /// Tells one who waits from all others; 0 stands for whoever uses a stream, who is alone.
    pub(super) fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Waits, or waits on with another waker. Answers the one that is of no use any more.
    pub(super) fn wait(&mut self, what: What, number: u64, waker: &Waker) -> Option<Waker> {
        match self.waiting.iter_mut().find(|(for_what, who, _)| (*for_what, *who) == (what, number)) {
            Some((_, _, old)) if old.will_wake(waker) => None,
            Some((_, _, old)) => Some(std::mem::replace(old, waker.clone())),
            None => {
                self.waiting.push((what, number, waker.clone()));
                None
            }
        }
    }

    /// Waits no more.
    pub(super) fn leave(&mut self, what: What, number: u64) -> Option<Waker> {
        let at = self.waiting.iter().position(|(for_what, who, _)| (*for_what, *who) == (what, number))?;
        Some(self.waiting.swap_remove(at).2)
    }

    /// Takes out all who wait for this.
    pub(super) fn take(&mut self, what: What, into: &mut Vec<Waker>) {
        while let Some(at) = self.waiting.iter().position(|(for_what, ..)| *for_what == what) {
            into.push(self.waiting.swap_remove(at).2);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes out everybody.
    pub(super) fn take_all(&mut self, into: &mut Vec<Waker>) {
        into.extend(std::mem::take(&mut self.waiting).into_iter().map(|(_, _, waker)| waker));
    }
}
