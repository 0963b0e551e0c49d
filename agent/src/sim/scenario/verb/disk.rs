//! `disk`: where a voter's log is. It stalls, fails, tears, rots; or an older state of it is put back.

use super::super::words::Words;
use super::{Act, Verb};
use crate::sim::disk::SimDisk;
use quorum::storage::{Fault, MemoryDisk};

const USAGE: &str =
    "disk HOST stall SPAN · fail eio|eio-after|enospc|lie · tear · flip · save NAME · restore NAME · empty";

pub(super) const VERBS: [Verb; 1] = [Verb { name: "disk", usage: USAGE, read: disk }];

fn disk(words: &mut Words<'_>) -> Result<Act, String> {
    let host = words.host()?;
    Ok(match words.next()? {
        "stall" => {
            let span = words.span()?;
            Box::new(move |stage| {
                stage.world.stall_disk(&host, span);
                Ok(())
            })
        }
        "fail" => {
            let fault = match words.next()? {
                "eio" => Fault::ErrorBefore,
                "eio-after" => Fault::ErrorAfter,
                "enospc" => Fault::Full,
                "lie" => Fault::Lie,
                other => return Err(format!("{other:?} is no fault of a disk")),
            };
            Box::new(move |stage| {
                stage.world.fail_disk(&host, fault);
                Ok(())
            })
        }
        "tear" => Box::new(move |stage| {
            stage.world.tear_disk(&host, 1);
            Ok(())
        }),
        "flip" => Box::new(move |stage| {
            stage.world.flip_disk(&host);
            Ok(())
        }),
        "save" => {
            let name = words.next()?.to_owned();
            Box::new(move |stage| {
                let SimDisk::Memory(disk) = &stage.world.hosts[&host].disk else {
                    return Err("only a disk in memory is put aside".into());
                };
                stage.disks.insert(name.clone(), disk.backup());
                Ok(())
            })
        }
        "restore" => {
            let name = words.next()?.to_owned();
            Box::new(move |stage| {
                let saved = stage.disks.get(&name).ok_or_else(|| format!("no disk was saved as {name:?}"))?;
                stage.world.replace_disk(&host, saved.backup())
            })
        }
        "empty" => Box::new(move |stage| stage.world.replace_disk(&host, MemoryDisk::default())),
        other => return Err(format!("{other:?} is nothing that happens to a disk")),
    })
}
