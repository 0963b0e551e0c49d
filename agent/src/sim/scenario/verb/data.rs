//! `work`, `workload`, `copy`: what drivers do for a group at a host, and the data there.

use super::super::words::Words;
use super::{Act, Verb};
use quorum::id::Generation;

const WORK: &str = "work HOST GROUP fail NAME TIMES · hang NAME · mend";

pub(super) const VERBS: [Verb; 3] = [
    Verb { name: "work", usage: WORK, read: work },
    Verb { name: "workload", usage: "workload HOST GROUP crash", read: workload },
    Verb { name: "copy", usage: "copy HOST GROUP generation NUMBER", read: copy },
];

/// Names of work, as `Place::name` has them.
const NAMES: [&str; 12] = [
    "observe",
    "promote",
    "start",
    "probe",
    "announce",
    "stop",
    "kill",
    "open-export",
    "close-export",
    "mirror",
    "release-writes",
    "record-generation",
];

fn name(words: &mut Words<'_>) -> Result<&'static str, String> {
    let word = words.next()?;
    let known = NAMES.into_iter().find(|name| *name == word);
    known.ok_or_else(|| format!("{word:?} is no work; it is {}", NAMES.join(", ")))
}

fn work(words: &mut Words<'_>) -> Result<Act, String> {
    let (host, group) = (words.host()?, words.group()?);
    Ok(match words.next()? {
        "fail" => {
            let name = name(words)?;
            let times = u32::try_from(words.number()?).map_err(|_| "a count isn't negative")?;
            Box::new(move |stage| {
                stage.world.fail_work(&host, &group, (name, times));
                Ok(())
            })
        }
        "hang" => {
            let name = name(words)?;
            Box::new(move |stage| {
                stage.world.hang_work(&host, &group, name);
                Ok(())
            })
        }
        "mend" => Box::new(move |stage| {
            stage.world.mend_work(&host, &group);
            Ok(())
        }),
        other => return Err(format!("{other:?} is nothing that happens to work")),
    })
}

fn workload(words: &mut Words<'_>) -> Result<Act, String> {
    let (host, group) = (words.host()?, words.group()?);
    Ok(match words.next()? {
        "crash" => Box::new(move |stage| {
            stage.world.crash_workload(&host, &group);
            Ok(())
        }),
        other => return Err(format!("{other:?} is nothing that happens to a workload")),
    })
}

/// The copy there says another generation of itself: it is behind, ahead, or of another lineage.
fn copy(words: &mut Words<'_>) -> Result<Act, String> {
    let (host, group) = (words.host()?, words.group()?);
    words.must("generation")?;
    let generation = u64::try_from(words.number()?).map_err(|_| "a generation isn't negative")?;
    Ok(Box::new(move |stage| {
        let place = stage.world.place_mut(&host, &group);
        let volume = place.volume.as_mut().ok_or_else(|| format!("{host} has no copy of {group}"))?;
        volume.generation = Generation(generation);
        Ok(())
    }))
}
