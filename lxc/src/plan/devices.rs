//! Device nodes of the spec.

use std::path::Path;

use cryopod_init::plan;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::mounts::absolute;
use crate::refusal::Refusal;

/// OCI runtime spec, "Default Devices"; `/dev/ptmx` is a link, `/dev/console` comes with a terminal.
pub(super) fn default_devices() -> Vec<plan::Device> {
    let all = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
    let memory = all.into_iter().map(|(name, minor)| (name, 1, minor));
    memory
        .chain([("tty", 5, 0)])
        .map(|(name, major, minor)| plan::Device {
            path: Path::new("/dev").join(name),
            mode: libc::S_IFCHR | 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
            fd: None,
        })
        .collect()
}

pub(super) fn device(index: usize, wanted: &LinuxDevice) -> Result<plan::Device, Refusal> {
    let field = |name: &str| format!("linux.devices[{index}].{name}");
    let kind = match wanted.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return Err(Refusal::of(field("type"), "is \"a\", which is no node")),
    };
    let number = |name: &str, number: i64| {
        u32::try_from(number)
            .map_err(|_| Refusal::of(field(name), format!("is {number}, which is no device number")))
    };
    Ok(plan::Device {
        path: absolute(wanted.path()),
        mode: kind | (wanted.file_mode().unwrap_or(0o666) & 0o7777),
        major: number("major", wanted.major())?,
        minor: number("minor", wanted.minor())?,
        uid: wanted.uid().unwrap_or(0),
        gid: wanted.gid().unwrap_or(0),
        fd: None,
    })
}
