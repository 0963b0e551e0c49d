//! The QEMU processes of one group.
//!
//! A process is ours if its command line names our process id file ([`crate::command::daemon`]); its epoch is read from
//! the same command line.
//!
//! Invariant: an empty list means that no process of the group exists.

use super::args::SMBIOS_PREFIX;
use super::runtime::QemuRuntime;
use crate::command::daemon::{self, Daemon};
use crate::workload::Place;
use quorum::id::{Epoch, HostEpoch};
use std::fs;
use std::path::Path;

/// All QEMU processes of the group whose runtime folder this is.
///
/// # Errors
/// What could not be read or told apart: there may be one that isn't in a list.
pub fn find(runtime: &QemuRuntime, place: &Place) -> Result<Vec<Daemon>, String> {
    let found = daemon::find("qemu-system", "-pidfile", &runtime.pid_file())?;
    if found.is_empty() {
        no_stranger_in(&place.cgroup)?;
        no_stranger_in(&place.pinned)?;
    }
    Ok(found)
}

/// The grant that a guest was started under, as its own command line says.
///
/// # Errors
/// It doesn't say.
pub fn grant_of(guest: &Daemon) -> Result<(Epoch, HostEpoch), String> {
    let token = |name: &str| {
        let mark = format!("value={SMBIOS_PREFIX}{name}=");
        guest.arg_after("-smbios")?.split(',').find_map(|part| part.strip_prefix(&mark))?.parse::<u64>().ok()
    };
    match (token("epoch"), token("host_epoch")) {
        (Some(epoch), Some(host_epoch)) => Ok((Epoch(epoch), HostEpoch(host_epoch))),
        _ => Err(format!("process {} is this group's QEMU but doesn't say its epoch", guest.pid)),
    }
}

/// In the group's cgroup there may be a QEMU that we can't name, or a child of an agent on its way to becoming one.
fn no_stranger_in(cgroup: &Path) -> Result<(), String> {
    let pids = match fs::read_to_string(cgroup.join("cgroup.procs")) {
        Ok(pids) => pids,
        Err(error) if daemon::is_gone(&error) => return Ok(()),
        Err(error) => return Err(format!("list the processes in {}: {error}", cgroup.display())),
    };
    let own = fs::read_link("/proc/self/exe").ok();
    for pid in pids.split_whitespace() {
        let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if Some(&program) == own.as_ref() || name.starts_with("qemu-system") {
            return Err(format!("process {pid} ({name}) is in the group's cgroup and not known"));
        }
    }
    Ok(())
}
