//! Describes running containers as the members of a capture.
//!
//! A volume that several containers of a pod share (an emptyDir, /dev/shm) is captured once, with the first that has
//! it; in the restored pod the containers share the new one again.

use std::collections::BTreeSet;
use std::path::Path;

use cryopod_checkpoint::target::{DiskRole, DiskSource, Member};

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
    share(&mut members);
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

/// Leaves each volume with the first member that has it.
fn share(members: &mut [Member]) {
    let mut seen = BTreeSet::new();
    for member in members {
        member.disks.retain(|disk| disk.role == DiskRole::Rootfs || seen.insert(place(&disk.source)));
    }
}

fn place(source: &DiskSource) -> std::path::PathBuf {
    match source {
        DiskSource::Zfs { mountpoint, .. } => mountpoint.clone(),
        DiskSource::Overlay { merged, .. } => merged.clone(),
        DiskSource::Tree { path } => path.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryopod_checkpoint::target::Disk;

    fn member(name: &str, volumes: &[(&str, &str)]) -> Member {
        let root = Disk {
            name: "rootfs".into(),
            role: DiskRole::Rootfs,
            source: DiskSource::Tree { path: "/same".into() },
        };
        let volumes = volumes.iter().map(|(name, path)| Disk {
            name: (*name).into(),
            role: DiskRole::Volume { destination: "/v".into(), name: (*name).into() },
            source: DiskSource::Tree { path: path.into() },
        });
        Member {
            name: name.into(),
            id: name.into(),
            image: String::new(),
            runtime: "oci/crun".into(),
            pid: 1,
            rss_bytes: 0,
            cgroup: "/sys/fs/cgroup/x".into(),
            was_paused: false,
            terminal: false,
            rootfs: "/r".into(),
            spec: serde_json::Value::Null,
            disks: std::iter::once(root).chain(volumes).collect(),
        }
    }

    #[test]
    fn a_shared_volume_is_captured_once_and_every_root_stays() {
        let mut members =
            [member("a", &[("volume-0", "/shm"), ("volume-1", "/x")]), member("b", &[("volume-0", "/shm")])];
        share(&mut members);
        let names: Vec<Vec<&str>> =
            members.iter().map(|m| m.disks.iter().map(|d| d.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["rootfs", "volume-0", "volume-1"], vec!["rootfs"]]);
    }
}
