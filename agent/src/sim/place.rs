//! A group at a host: its workload and its copy of the data, played, with every write accounted for.

use crate::engine::{CopyFound, Found, Presence, Report, Work};
use quorum::id::{Epoch, Generation, HostEpoch, HostName};
use std::collections::BTreeMap;
use std::time::Duration;

/// What was written to a copy, owner after owner: the epoch, and for how many nanoseconds it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes(Vec<(Epoch, u64)>);

impl Writes {
    /// Goes on writing under `epoch`.
    pub fn add(&mut self, epoch: Epoch, span_ns: u64) {
        match self.0.last_mut() {
            Some((last, count)) if *last == epoch => *count += span_ns,
            _ if span_ns > 0 => self.0.push((epoch, span_ns)),
            _ => {}
        }
    }

    /// Whether everything in `other` is here, in the same order and with nothing foreign in between.
    pub fn has(&self, other: &Self) -> bool {
        let Some(((last_epoch, last_count), before)) = other.0.split_last() else { return true };
        let is_prefix = self.0.len() > before.len() && self.0[..before.len()] == *before;
        is_prefix && self.0[before.len()].0 == *last_epoch && self.0[before.len()].1 >= *last_count
    }

    /// How much `other` has that is missing here, in nanoseconds of writing.
    pub fn misses(&self, other: &Self) -> u64 {
        let same = self.0.iter().zip(&other.0).take_while(|(mine, theirs)| mine == theirs).count();
        let theirs: u64 = other.0[same..].iter().map(|(_, count)| count).sum();
        let shared = match (self.0.get(same), other.0.get(same)) {
            (Some((mine, count)), Some((epoch, other))) if mine == epoch => *count.min(other),
            _ => 0,
        };
        theirs - shared
    }
}

/// A copy of a group's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Generation recorded beside it.
    pub generation: Generation,
    /// What was written to it.
    pub writes: Writes,
    /// Open to the writes of this owner under this epoch.
    pub export: Option<(Epoch, HostName)>,
    /// It is being made equal under an epoch, or was made so; `None` where it is the source's.
    pub follows: Option<(Epoch, Whole)>,
    /// It answered a write with an error, and wasn't made equal since.
    pub has_refused: bool,
    /// The epoch under which it was promoted last.
    pub reign: Option<Epoch>,
}

/// Whether a standby's copy is a mixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// Parts of it are newer than others.
    Mixture,
    /// It was recorded as equal.
    Recorded,
}

impl Volume {
    /// What the copy says of itself.
    fn says(&self) -> Generation {
        match self.follows {
            Some(_) if self.has_refused => Generation(0),
            Some((_, Whole::Mixture)) => Generation(0),
            Some((_, Whole::Recorded)) | None => self.generation,
        }
    }

    /// Says its generation from now on; a copy that reigned under another epoch doesn't.
    fn record(&mut self, epoch: Epoch, generation: Generation) -> Report {
        if self.follows.is_none() && self.reign != Some(epoch) {
            return Report::Failed { because: format!("this copy didn't reign under epoch {epoch}") };
        }
        if self.follows.is_some() && self.has_refused {
            return Report::Failed { because: "this copy refused a write, and lacks it".into() };
        }
        self.generation = generation;
        self.follows = self.follows.map(|_| (epoch, Whole::Recorded));
        Report::Done { detail: "recorded".into() }
    }
}

/// What is to go wrong with a kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkFault {
    /// So many times it fails and changes nothing.
    Fails(u32),
    /// It doesn't end until it is mended.
    Hangs,
}

/// What is of a group at a host. The volume survives a power cut, the rest doesn't.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The running workload's epoch.
    pub running: Option<Epoch>,
    /// The host epoch under which it was started.
    pub started_under: Option<HostEpoch>,
    /// Its processes are in the pinned cgroup, which the lease's end doesn't reach.
    pub is_tied: bool,
    /// The copy; `None` if the group has no data here.
    pub volume: Option<Volume>,
    /// The running workload mirrors to this host.
    pub mirror: Option<HostName>,
    /// No write waits for that mirror: what it can't take is answered all the same, and is taken later.
    pub is_mirror_behind: bool,
    /// A write is on this copy that waits for the mirror and was never answered.
    pub unanswered: bool,
    /// What is to go wrong, by the name of the work.
    pub faults: BTreeMap<&'static str, WorkFault>,
}

impl Place {
    /// Power was cut: what runs is gone, what was written stays.
    pub fn cut(&mut self) {
        self.end();
        if let Some(volume) = &mut self.volume {
            volume.export = None;
        }
    }

    /// The workload is gone, by whatever hand.
    pub fn end(&mut self) {
        self.running = None;
        self.started_under = None;
        self.is_tied = false;
        self.mirror = None;
        self.is_mirror_behind = false;
        self.unanswered = false;
    }

    /// The work's name, as faults are planted by.
    pub const fn name(work: &Work) -> &'static str {
        match work {
            Work::Observe => "observe",
            Work::Promote { .. } => "promote",
            Work::Start { .. } => "start",
            Work::Probe { .. } => "probe",
            Work::Announce { .. } => "announce",
            Work::Stop { .. } => "stop",
            Work::Kill => "kill",
            Work::Tie { .. } => "tie",
            Work::Untie { .. } => "untie",
            Work::OpenExport { .. } => "open-export",
            Work::CloseExport => "close-export",
            Work::Mirror { .. } => "mirror",
            Work::ReleaseWrites { .. } => "release-writes",
            Work::RecordGeneration { .. } => "record-generation",
        }
    }

    /// How long the work takes.
    pub fn span(work: &Work) -> Duration {
        Duration::from_millis(match work {
            Work::Observe | Work::RecordGeneration { .. } | Work::CloseExport => 5,
            Work::Kill | Work::Tie { .. } | Work::Untie { .. } => 20,
            Work::Announce { .. } | Work::ReleaseWrites { .. } | Work::OpenExport { .. } => 20,
            Work::Promote { .. } => 50,
            Work::Start { .. } => 300,
            Work::Probe { .. } => 2_000,
            Work::Stop { .. } => 1_000,
            Work::Mirror { .. } => 1_500,
        })
    }

    /// Whether a planted fault strikes this work as it ends: `None` if not, else whether it hangs.
    pub(super) fn strikes(&mut self, work: &Work) -> Option<WorkFault> {
        let name = Self::name(work);
        let fault = *self.faults.get(name)?;
        match fault {
            WorkFault::Fails(0) => {
                self.faults.remove(name);
                return None;
            }
            WorkFault::Fails(left) => {
                self.faults.insert(name, WorkFault::Fails(left - 1));
            }
            WorkFault::Hangs => {}
        }
        Some(fault)
    }

    /// Performs the work as it ends. What concerns another host's place is the world's business.
    pub fn perform(&mut self, work: &Work) -> Report {
        let done = |detail: &str| Report::Done { detail: detail.to_owned() };
        match work {
            Work::Observe => Report::Found(Found {
                workload: self.running.map_or(Presence::Absent, Presence::Running),
                copy: self.volume.as_ref().map(|volume| CopyFound { generation: volume.says(), check: None }),
                is_tied: self.is_tied,
            }),
            Work::Promote { epoch, opens, generation } => self.promote(*epoch, *opens, *generation),
            Work::Start { epoch, host_epoch } => {
                self.running = Some(*epoch);
                self.started_under = Some(*host_epoch);
                done("started")
            }
            Work::Probe { epoch } if self.running == Some(*epoch) => done("it answers"),
            Work::Probe { .. } => Report::Failed { because: "nothing answers".into() },
            Work::Announce { .. } => done("announced"),
            Work::Stop { .. } => {
                let is_drained = self.mirror.is_some();
                self.end();
                Report::Stopped { is_drained, untouched: false }
            }
            Work::Kill => {
                self.end();
                done("killed")
            }
            Work::Tie { .. } | Work::Untie { .. } => {
                self.is_tied = matches!(work, Work::Tie { .. }) && self.running.is_some();
                done("moved")
            }
            Work::OpenExport { epoch, owner, is_whole } => {
                if let Some(volume) = &mut self.volume {
                    volume.export = Some((*epoch, owner.clone()));
                    if !is_whole || volume.follows != Some((*epoch, Whole::Recorded)) {
                        volume.follows = Some((*epoch, Whole::Mixture));
                    }
                }
                done("open")
            }
            Work::CloseExport => {
                if let Some(volume) = &mut self.volume {
                    volume.export = None;
                }
                done("closed")
            }
            Work::Mirror { .. } => done("mirrored"),
            Work::ReleaseWrites { .. } => {
                self.mirror = None;
                self.unanswered = false;
                done("released")
            }
            Work::RecordGeneration { epoch, generation } => match &mut self.volume {
                Some(volume) => volume.record(*epoch, *generation),
                None => done("no volumes"),
            },
        }
    }

    fn promote(&mut self, epoch: Epoch, opens: Generation, generation: Generation) -> Report {
        let Some(volume) = &mut self.volume else { return Report::Done { detail: "no volumes".into() } };
        volume.export = None;
        if volume.follows.is_none() && volume.reign == Some(epoch) {
            return Report::Done { detail: "promoted before".into() };
        }
        let says = volume.says();
        if says != opens && says != generation {
            return Report::Failed { because: format!("the copy has generation {says}, {opens} was expected") };
        }
        volume.generation = generation;
        (volume.follows, volume.has_refused) = (None, false);
        volume.reign = Some(epoch);
        Report::Done { detail: "promoted".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(parts: &[(u64, u64)]) -> Writes {
        let mut writes = Writes::default();
        parts.iter().for_each(|(epoch, count)| writes.add(Epoch(*epoch), *count));
        writes
    }

    #[test]
    fn a_copy_has_what_was_acknowledged_only_if_nothing_foreign_lies_between() {
        let acknowledged = writes(&[(1, 100), (2, 50)]);
        assert!(writes(&[(1, 100), (2, 51)]).has(&acknowledged), "an unanswered write more does no harm at the end");
        assert!(!writes(&[(1, 101), (2, 50)]).has(&acknowledged), "in the middle it is another history");
        assert!(!writes(&[(1, 100), (2, 49)]).has(&acknowledged));
        assert!(!writes(&[(1, 100)]).has(&acknowledged));
        assert_eq!(writes(&[(1, 100), (2, 20)]).misses(&acknowledged), 30);
        assert_eq!(writes(&[(1, 90)]).misses(&acknowledged), 60);
    }
}
