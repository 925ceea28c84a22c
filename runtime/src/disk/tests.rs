use super::*;
use serde_json::json;

fn bind(destination: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: "bind".into(),
        source: source.into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

const POD: &str = "/var/lib/kubelet/pods/6d6f/";

#[test]
fn every_kind_of_mount_of_a_pod_has_its_class() {
    use SourceKind::{Directory, File, Special};
    let proc =
        Mount { destination: "/proc".into(), kind: "proc".into(), source: "proc".into(), options: vec![] };
    assert_eq!(classify(&proc, Directory), Class::Live);
    let sandboxes = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s1/";
    for (destination, source, options, kind, class) in [
        ("/etc/hosts", format!("{POD}etc-hosts"), &["rw"][..], File, Class::Live),
        ("/dev/termination-log", format!("{POD}containers/c/1f"), &["rw"], File, Class::Live),
        ("/etc/hostname", format!("{sandboxes}hostname"), &["rw"], File, Class::Live),
        ("/dev/shm", format!("{sandboxes}shm"), &["rw"], Directory, Class::EmptyDir),
        (
            "/var/run/secrets/x",
            format!("{POD}volumes/kubernetes.io~projected/t"),
            &["ro"],
            Directory,
            Class::Live,
        ),
        ("/config", format!("{POD}volumes/kubernetes.io~configmap/c"), &["rw"], Directory, Class::Live),
        (
            "/cache",
            format!("{POD}volumes/kubernetes.io~empty-dir/cache"),
            &["rw"],
            Directory,
            Class::EmptyDir,
        ),
        ("/data", format!("{POD}volumes/kubernetes.io~csi/pv/mount"), &["rw"], Directory, Class::Other),
        ("/host", "/srv/data".to_owned(), &["rbind"], Directory, Class::Other),
        ("/host", "/srv/data".to_owned(), &["rbind", "ro"], Directory, Class::Live),
        ("/run/docker.sock", "/run/docker.sock".to_owned(), &["rw"], Special, Class::Live),
        ("/app.conf", "/srv/app.conf".to_owned(), &["rw"], File, Class::File),
    ] {
        assert_eq!(
            classify(&bind(destination, &source, options), kind),
            class,
            "{destination} from {source}"
        );
    }
}

fn table(root: &Path, volume: &Path) -> MountTable {
    MountTable::parse(&format!(
        "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {} rw - zfs tank/c1 rw\n3 1 0:3 / {} rw - zfs tank/v1 rw\n",
        root.display(),
        volume.display()
    ))
}

fn spec(volume: &Path, policy: Option<&str>) -> Spec {
    Spec::from_value(json!({
        "annotations": {"cryopod.dev/volumes": policy},
        "mounts": [{"destination": "/data", "type": "bind", "source": volume, "options": ["rbind", "rw"]}]
    }))
}

#[test]
fn a_dataset_of_its_own_is_snapshotted_and_a_directory_is_copied() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = std::fs::canonicalize(dir.path()).expect("path");
    let (root, volume) = (dir.join("rootfs"), dir.join("volume"));
    std::fs::create_dir(&root).expect("root");
    std::fs::create_dir_all(volume.join("sub")).expect("volume");
    let table = table(&root, &volume);

    let disks = of_container(&spec(&volume, Some("capture")), &root, &table, &VolumeSection::default())
        .expect("disks");
    let sources: Vec<bool> = disks.iter().map(|disk| matches!(disk.source, DiskSource::Zfs { .. })).collect();
    assert_eq!(sources, [true, true]);
    assert_eq!(disks.get(1).map(|disk| disk.name.as_str()), Some("volume-0"));

    let below = volume.join("sub");
    let disks = of_container(&spec(&below, Some("capture")), &root, &table, &VolumeSection::default())
        .expect("disks");
    assert_eq!(disks.get(1).map(|disk| disk.source.clone()), Some(DiskSource::Tree { path: below }));
}

#[test]
fn a_bind_of_a_part_of_a_dataset_is_copied() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = std::fs::canonicalize(dir.path()).expect("path");
    let table = MountTable::parse(&format!("2 1 0:2 /part {} rw - zfs tank/c1 rw\n", dir.display()));
    assert_eq!(source(&dir, &table).expect("source"), DiskSource::Tree { path: dir });
}

#[test]
fn an_overlay_gives_its_upper_layer() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = std::fs::canonicalize(dir.path()).expect("path");
    let line = format!(
        "2 1 0:2 / {} rw - overlay overlay rw,lowerdir=/l,upperdir=/u/fs,workdir=/u/w\n",
        dir.display()
    );
    let found = source(&dir, &MountTable::parse(&line)).expect("source");
    assert_eq!(found, DiskSource::Overlay { upper: "/u/fs".into(), merged: dir });
}

#[test]
fn a_writable_volume_is_refused_by_name_unless_someone_decided() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let volume = dir.path().join("volume");
    std::fs::create_dir(&volume).expect("volume");
    let disks = |policy, defaults: &VolumeSection| {
        of_container(&spec(&volume, policy), dir.path(), &MountTable::default(), defaults)
    };
    let defaults = VolumeSection::default();
    let error = disks(None, &defaults).expect_err("refused");
    assert!(matches!(&error, DiskError::Refused(refusal) if refusal.code == VOLUME_REFUSED), "{error}");
    assert!(error.to_string().contains("volume /data"), "{error}");
    assert_eq!(disks(Some("skip"), &defaults).expect("skipped").len(), 1);
    assert_eq!(disks(Some("capture"), &defaults).expect("captured").len(), 2);
    let lenient = VolumeSection { other: VolumePolicy::Skip, ..defaults.clone() };
    assert_eq!(disks(None, &lenient).expect("skipped").len(), 1);
    let error = disks(Some("captrue"), &defaults).expect_err("typo");
    assert!(error.to_string().contains("set it to capture, skip or refuse"), "{error}");
}

#[test]
fn an_empty_dir_is_captured_under_its_own_name() {
    let mount = bind("/cache", &format!("{POD}volumes/kubernetes.io~empty-dir/cache"), &["rw"]);
    assert_eq!(volume_name(&mount), "cache");
    assert_eq!(volume_name(&bind("/data", "/srv", &["rw"])), "/data");
}
