//! The Linux way to send a SCSI command: the SG_IO ioctl on a block or sg device.

use super::scsi::{Data, Ending, Path};
use rustix::fs::{Mode, OFlags};
use std::ffi::c_void;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// A device node.
#[derive(Debug)]
pub struct SgPath(OwnedFd);

impl SgPath {
    /// Opens `path`.
    ///
    /// # Errors
    /// The system's words.
    pub fn open(path: &std::path::Path) -> Result<Self, String> {
        // NONBLOCK: opening must not wait for a medium or a lost path.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Self).map_err(|error| error.to_string())
    }
}

/// `struct sg_io_hdr` of <scsi/sg.h>, version 3.
#[repr(C)]
struct SgIoHdr {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut c_void,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: *mut c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

const SG_DXFER_TO_DEV: i32 = -2;
const SG_DXFER_FROM_DEV: i32 = -3;
/// The kernel's own limit for one command; its error handling may add to it.
const TIMEOUT_MS: u32 = 5_000;

nix::ioctl_readwrite_bad!(sg_io, 0x2285, SgIoHdr);

impl Path for SgPath {
    fn execute(&mut self, cdb: &[u8], data: Data<'_>) -> Result<Ending, String> {
        let mut sense = [0_u8; 64];
        let (dxfer_direction, dxferp, length) = match data {
            Data::In(bytes) => (SG_DXFER_FROM_DEV, bytes.as_mut_ptr().cast::<c_void>(), bytes.len()),
            Data::Out(bytes) => (SG_DXFER_TO_DEV, bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len()),
        };
        let mut header = SgIoHdr {
            interface_id: i32::from(b'S'),
            dxfer_direction,
            cmd_len: u8::try_from(cdb.len()).map_err(|_| "the command is too long".to_owned())?,
            mx_sb_len: 64,
            iovec_count: 0,
            dxfer_len: u32::try_from(length).map_err(|_| "the data are too long".to_owned())?,
            dxferp,
            cmdp: cdb.as_ptr(),
            sbp: sense.as_mut_ptr(),
            timeout: TIMEOUT_MS,
            flags: 0,
            pack_id: 0,
            usr_ptr: std::ptr::null_mut(),
            status: 0,
            masked_status: 0,
            msg_status: 0,
            sb_len_wr: 0,
            host_status: 0,
            driver_status: 0,
            resid: 0,
            duration: 0,
            info: 0,
        };
        // SAFETY: `header` has the layout that the kernel expects; its pointers are to `cdb`, `sense` and the caller's
        // buffer, whose lengths it carries and which outlive the call; with SG_DXFER_TO_DEV the kernel only reads the data.
        unsafe { sg_io(self.0.as_raw_fd(), &raw mut header) }.map_err(|error| format!("SG_IO: {error}"))?;
        if header.host_status != 0 {
            return Err(format!("the path failed (host status {:#x})", header.host_status));
        }
        Ok(Ending { status: header.status, sense: understand(&sense[..usize::from(header.sb_len_wr).min(64)]) })
    }
}

/// Sense key, additional code and qualifier, from either format of sense data (SPC-4, 4.5).
pub(in crate::device) fn understand(sense: &[u8]) -> Option<(u8, u8, u8)> {
    let byte = |at: usize| sense.get(at).copied().unwrap_or(0);
    match sense.first()? & 0x7f {
        0x70 | 0x71 => Some((byte(2) & 0x0f, byte(12), byte(13))),
        0x72 | 0x73 => Some((byte(1) & 0x0f, byte(2), byte(3))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sense_is_understood_in_both_formats() {
        let mut fixed = [0; 18];
        (fixed[0], fixed[2], fixed[12], fixed[13]) = (0x70, 0x05, 0x24, 0x00);
        assert_eq!(understand(&fixed), Some((5, 0x24, 0)));
        assert_eq!(understand(&[0x72, 0x06, 0x2a, 0x03]), Some((6, 0x2a, 3)));
        assert_eq!(understand(&[]), None);
    }

    #[test]
    fn the_header_has_the_kernels_size() {
        assert_eq!(std::mem::size_of::<SgIoHdr>(), if cfg!(target_pointer_width = "64") { 88 } else { 64 });
    }
}
