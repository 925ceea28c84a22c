//! Manifests for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cryopod_zfs::Guid;

use super::*;
use crate::digest;
use crate::target::{Disk, DiskRole, DiskSource};
use crate::timeline::Phase;

pub(crate) fn member(name: &str, dataset: &str) -> Member {
    Member {
        name: name.into(),
        id: format!("{name}-id"),
        image: "docker.io/library/busybox:1.36".into(),
        runtime: "oci/crun 1.21".into(),
        pid: 4711,
        rss_bytes: 16 << 20,
        cgroup: format!("/sys/fs/cgroup/pods/{name}").into(),
        was_paused: false,
        terminal: false,
        rootfs: format!("/run/bundles/{name}/rootfs").into(),
        spec: serde_json::json!({"ociVersion": "1.2.0", "process": {"args": ["sh"]}}),
        disks: vec![Disk {
            name: "rootfs".into(),
            role: DiskRole::Rootfs,
            source: DiskSource::Zfs {
                dataset: dataset.parse().unwrap(),
                mountpoint: format!("/run/bundles/{name}/rootfs").into(),
            },
        }],
    }
}

pub(crate) fn zfs_content(guid: u64) -> DiskContent {
    DiskContent::Zfs {
        snapshot: "cryopod-web-20260304-050607-00ff".into(),
        guid: Guid(guid),
        base: Some(Guid(18_446_744_073_709_551_615)),
        referenced_bytes: 4 << 20,
    }
}

/// Two members with memory; the second has a volume of its own and one shared with the first.
pub(crate) fn full() -> Manifest {
    let mut web = member("web", "tank/snaps/13");
    let volume = Disk {
        name: "volume-0".into(),
        role: DiskRole::Volume { destination: "/data".into(), name: "data".into() },
        source: DiskSource::Tree { path: PathBuf::from("/var/lib/kubelet/pods/1/volumes/data") },
    };
    web.disks.push(volume.clone());
    let mut side = member("side", "tank/snaps/14");
    side.disks.push(volume);
    let memory = |name: &str| MemoryRecord {
        rounds: vec!["1".into(), "dump".into()],
        files: vec![
            FileRecord { path: "dump/inventory.img".into(), size: 3, sha256: digest::of(name.as_bytes()) },
            FileRecord { path: "1/pages-1.img".into(), size: 0, sha256: digest::of(b"") },
        ],
        frozen_us: 1234,
        connected: None,
    };
    let tree = DiskContent::Tree { bytes: 5, entries: 2, sha256: digest::of(b"tree"), layer: false };
    let shared = DiskContent::Shared { member: "web".into(), disk: "volume-0".into() };
    Manifest {
        version: VERSION,
        id: "web-20260304-050607-00ff".parse().unwrap(),
        created: "2026-03-04T05:06:07Z".parse().unwrap(),
        tool: "cryopod 0.1.0".into(),
        mode: CapturedMode::Full,
        memory_refused: None,
        pod: PodIdentity {
            id: "s1".into(),
            name: "web".into(),
            namespace: "default".into(),
            uid: "u".into(),
        },
        labels: BTreeMap::from([("why".to_owned(), "test".to_owned())]),
        tcp: TcpPolicy::Keep,
        node: NodeFacts {
            hostname: "node1".into(),
            kernel: "6.12.107".into(),
            arch: "x86_64".into(),
            cpu_vendor: "GenuineIntel".into(),
            cpu_flags: BTreeSet::from(["avx2".to_owned()]),
            criu: Some("4.1.1".into()),
        },
        timeline: Timeline {
            phases: vec![Phase { name: "freeze".into(), start_us: 1, duration_us: 2 }],
            freeze_us: 2,
            total_us: 9,
            memory_bytes: 6,
            copied_bytes: 5,
        },
        members: vec![
            MemberRecord {
                disks: vec![
                    DiskRecord { name: "rootfs".into(), content: zfs_content(7) },
                    DiskRecord { name: "volume-0".into(), content: tree },
                ],
                memory: Some(memory("web")),
                member: web,
            },
            MemberRecord {
                disks: vec![
                    DiskRecord { name: "rootfs".into(), content: zfs_content(8) },
                    DiskRecord { name: "volume-0".into(), content: shared },
                ],
                memory: Some(memory("side")),
                member: side,
            },
        ],
    }
}

pub(crate) fn disk_only() -> Manifest {
    let mut manifest = full();
    manifest.mode = CapturedMode::Disk;
    manifest.memory_refused = Some(Refusal::new("io-uring", "web uses io_uring", "use mode disk"));
    for record in &mut manifest.members {
        record.memory = None;
    }
    manifest
}
