//! A group at a host: its workload and its copy of the data, played.

use crate::engine::{CopyFound, Found, Presence, Report, Work};
use quorum::id::{Epoch, Generation, HostName};
use std::time::Duration;

/// A copy of a group's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Generation recorded beside it.
    pub generation: Generation,
    /// Writes that it has, counted; the owner's count is the truth.
    pub writes: u64,
    /// Open to the writes of this owner under this epoch.
    pub export: Option<(Epoch, HostName)>,
    /// It is being made equal under an epoch, or was made so; `None` where it is the source's.
    pub follows: Option<(Epoch, Whole)>,
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
            Some((_, Whole::Mixture)) => Generation(0),
            Some((_, Whole::Recorded)) | None => self.generation,
        }
    }
}

/// What is of a group at a host. The volume survives a power cut, the rest doesn't.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The running workload's epoch.
    pub running: Option<Epoch>,
    /// The copy; `None` if the group has no data here.
    pub volume: Option<Volume>,
    /// The running workload mirrors to this host, and every write waits for it.
    pub mirror: Option<HostName>,
}

impl Place {
    /// Power was cut: what runs is gone, what was written stays.
    pub fn cut(&mut self) {
        self.running = None;
        self.mirror = None;
        if let Some(volume) = &mut self.volume {
            volume.export = None;
        }
    }

    /// How long the work takes.
    pub fn span(work: &Work) -> Duration {
        Duration::from_millis(match work {
            Work::Observe | Work::RecordGeneration { .. } | Work::CloseExport => 5,
            Work::Kill | Work::Announce { .. } | Work::ReleaseWrites { .. } | Work::OpenExport { .. } => 20,
            Work::Promote { .. } => 50,
            Work::Start { .. } => 300,
            Work::Probe { .. } => 2_000,
            Work::Stop { .. } => 1_000,
            Work::Mirror { .. } => 1_500,
        })
    }

    /// Performs the work as it ends. What concerns another host's place is the world's business.
    pub fn perform(&mut self, work: &Work) -> Report {
        let done = |detail: &str| Report::Done { detail: detail.to_owned() };
        match work {
            Work::Observe => Report::Found(Found {
                workload: self.running.map_or(Presence::Absent, Presence::Running),
                copy: self.volume.as_ref().map(|volume| CopyFound { generation: volume.says(), check: None }),
            }),
            Work::Promote { opens, generation, .. } => self.promote(*opens, *generation),
            Work::Start { epoch, .. } => {
                self.running = Some(*epoch);
                done("started")
            }
            Work::Probe { epoch } if self.running == Some(*epoch) => done("it answers"),
            Work::Probe { .. } => Report::Failed { because: "nothing answers".into() },
            Work::Announce { .. } => done("announced"),
            Work::Stop { .. } => {
                self.running = None;
                Report::Stopped { is_drained: self.mirror.take().is_some(), untouched: false }
            }
            Work::Kill => {
                self.running = None;
                self.mirror = None;
                done("killed")
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
                done("released")
            }
            Work::RecordGeneration { epoch, generation } => {
                if let Some(volume) = &mut self.volume {
                    volume.generation = *generation;
                    volume.follows = volume.follows.map(|_| (*epoch, Whole::Recorded));
                }
                done("recorded")
            }
        }
    }

    fn promote(&mut self, opens: Generation, generation: Generation) -> Report {
        let Some(volume) = &mut self.volume else { return Report::Done { detail: "no volumes".into() } };
        volume.export = None;
        // A promotion that was done before an agent's restart finds its own generation.
        let says = volume.says();
        if says != opens && says != generation {
            return Report::Failed { because: format!("the copy has generation {says}, {opens} was expected") };
        }
        volume.generation = generation;
        volume.follows = None;
        Report::Done { detail: "promoted".into() }
    }
}
