//! Describes running containers as the members of a capture.
//!
//! A volume that several containers of a pod share (an emptyDir, /dev/shm) is a disk of each of them: the capture takes
//! it once, and in the new pod the first of them that is made brings it back, whichever that is.

use std::path::Path;

use cryopod_checkpoint::target::Member;

use crate::backend::Backend;
use crate::cgroup::Cgroup;
use crate::config::VolumeSection;
use crate::disk;
use crate::error::Error;
use crate::mountinfo::MountTable;
use crate::process;
use crate::spec::Spec;

/// A running container.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// Container id.
    pub id: &'a str,
    /// Bundle directory.
    pub bundle: &'a Path,
    /// Root file system, where it is not the bundle's (a shim that mounts it elsewhere).
    pub rootfs: Option<&'a Path>,
    /// PID of its init on the host.
    pub pid: u32,
}

/// Members in the given order. `runtime` is backend, name and version, e.g. `oci/crun 1.21`.
pub fn describe(
    containers: &[Running<'_>],
    backend: &dyn Backend,
    runtime: &str,
    volumes: &VolumeSection,
) -> Result<Vec<Member>, Error> {
    let table = MountTable::own().map_err(Error::file("read", Path::new("/proc/self/mountinfo")))?;
    let mut members = Vec::with_capacity(containers.len());
    for container in containers {
        members.push(member(container, backend, runtime, volumes, &table)?);
    }
    Ok(members)
}

fn member(
    container: &Running<'_>,
    backend: &dyn Backend,
    runtime: &str,
    volumes: &VolumeSection,
    table: &MountTable,
) -> Result<Member, Error> {
    let spec = Spec::of_bundle(container.bundle)?;
    let rootfs = container.rootfs.map_or_else(|| spec.rootfs(container.bundle), Path::to_owned);
    let rootfs = std::fs::canonicalize(&rootfs).map_err(Error::file("look at", &rootfs))?;
    let cgroup = Cgroup::at(backend.cgroup(container.id, container.pid)?);
    Ok(Member {
        name: spec.name(container.id).to_owned(),
        id: container.id.to_owned(),
        image: spec.image().to_owned(),
        runtime: runtime.to_owned(),
        pid: container.pid,
        rss_bytes: cgroup.processes()?.into_iter().map(process::resident).sum(),
        was_paused: cgroup.is_frozen()?,
        cgroup: cgroup.path().to_owned(),
        terminal: spec.terminal(),
        disks: disk::of_container(&spec, &rootfs, table, volumes)?,
        rootfs,
        spec: spec.into_value(),
    })
}
