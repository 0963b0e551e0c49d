//! Which accelerator works here: seen by running a guest, not by finding a device.
//!
//! `/dev/kvm` may exist, open, and even run a BIOS, and yet hang every operating system (nested virtualisation). So a
//! guest of one page is run that does what operating systems do first (`probe_guest.s`); only its own report counts.
//! The answer is kept for the life of the process: the probe costs up to [`PROBE_LIMIT`] where KVM hangs.

use super::spec::AcceleratorChoice;
use crate::command::{CommandError, Ending, Invocation, Program};
use std::path::Path;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The probe guest needs some 50 ms, and a second on a machine with ten times the load that it can bear.
pub const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// QEMU's exit code when the guest wrote 42: the device makes `(42 << 1) | 1` of it.
const REPORTED: Ending = Ending::Code(85);

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// The value of QEMU's `-accel`.
    pub name: &'static str,
    /// The reason, for people.
    pub because: String,
}

/// The accelerator for `choice`; a probe's files are made in `folder`.
///
/// # Errors
/// The reason why the accelerator asked for can't be had.
pub async fn choose(qemu: &Program, choice: AcceleratorChoice, folder: &Path) -> Result<Accelerator, String> {
    match choice {
        AcceleratorChoice::Tcg => Ok(Accelerator { name: "tcg", because: "the spec asks for emulation".into() }),
        AcceleratorChoice::Kvm => match kvm(qemu, folder).await {
            Ok(()) => Ok(Accelerator { name: "kvm", because: "the spec asks for it, and a guest ran".into() }),
            Err(because) => Err(format!("the spec asks for KVM: {because}")),
        },
        AcceleratorChoice::Auto => Ok(match kvm(qemu, folder).await {
            Ok(()) => Accelerator { name: "kvm", because: "a guest ran".into() },
            Err(because) => Accelerator { name: "tcg", because },
        }),
    }
}

/// Whether KVM runs a guest, tried once in the life of this process.
async fn kvm(qemu: &Program, folder: &Path) -> Result<(), String> {
    static TRIED: OnceCell<Result<(), String>> = OnceCell::const_new();
    TRIED.get_or_init(|| try_out(qemu, "kvm", folder, PROBE_LIMIT)).await.clone()
}

/// Runs the probe guest under `accelerator`; within `limit` it must report.
///
/// # Errors
/// Why it can't be used.
pub async fn try_out(qemu: &Program, accelerator: &str, folder: &Path, limit: Duration) -> Result<(), String> {
    let rom = folder.join(format!("probe-{accelerator}.rom"));
    std::fs::write(&rom, probe_rom()?).map_err(|error| format!("write the probe guest: {error}"))?;
    let run = Invocation::new(qemu, limit)
        .args(["-accel", accelerator, "-machine", "q35", "-m", "4", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios"])
        .arg(&rom)
        .run()
        .await;
    // Left behind it would be overwritten by the next probe.
    let _ = std::fs::remove_file(&rom);
    match run {
        Ok(outcome) if outcome.ending == REPORTED => Ok(()),
        Ok(outcome) => Err(format!("{accelerator} did not run a guest: {}", outcome.summary())),
        Err(CommandError::Silent { limit, .. }) => {
            Err(format!("{accelerator} hangs guests: no sign of the probe guest within {} s", limit.as_secs()))
        }
        Err(error) => Err(format!("{accelerator} could not be tried: {error}")),
    }
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(include_str!("probe_guest.s"), options(att_syntax));

/// The probe guest as a ROM image.
#[cfg(target_arch = "x86_64")]
fn probe_rom() -> Result<Vec<u8>, String> {
    const PAGE: usize = 4096;
    const ROM: usize = 65536;
    unsafe extern "C" {
        #[link_name = "antipode_probe_guest"]
        static PROBE_GUEST: [u8; PAGE];
    }
    let mut rom = vec![0; ROM];
    // SAFETY: the symbol is defined by the assembly above: one page of read-only bytes that nothing ever writes.
    rom[ROM - PAGE..].copy_from_slice(&unsafe { PROBE_GUEST });
    Ok(rom)
}

#[cfg(not(target_arch = "x86_64"))]
fn probe_rom() -> Result<Vec<u8>, String> {
    Err("the probe guest is written for x86_64".into())
}
