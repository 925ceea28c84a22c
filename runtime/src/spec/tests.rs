use super::*;
use serde_json::json;

fn spec() -> Spec {
    Spec::from_value(json!({
        "ociVersion": "1.2.0",
        "futureField": {"kept": true},
        "process": {"terminal": true, "args": ["sh"]},
        "root": {"path": "rootfs", "readonly": true},
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "s1",
            "io.kubernetes.cri.sandbox-name": "web",
            "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.sandbox-uid": "u-1",
            "io.kubernetes.cri.container-name": "nginx",
            "io.kubernetes.cri.image-name": "docker.io/library/nginx:1",
            "cryopod.dev/volumes": ""
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/etc/hosts", "type": "bind", "source": "/var/lib/kubelet/x", "options": ["rbind", "ro"]},
            {"destination": "/data", "source": "/srv", "options": ["rbind", "ro", "rw"]}
        ],
        "linux": {
            "cgroupsPath": "/kubepods/pod1/c1",
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/7/ns/net"}],
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
        }
    }))
}

#[test]
fn a_cri_container_knows_its_pod() {
    let spec = spec();
    assert_eq!(spec.container_type(), ContainerType::Container);
    assert_eq!(spec.name("c1"), "nginx");
    let pod = spec.pod("c1");
    assert_eq!(
        (pod.id.as_str(), pod.name.as_str(), pod.namespace.as_str(), pod.uid.as_str()),
        ("s1", "web", "shop", "u-1")
    );
    assert_eq!(spec.image(), "docker.io/library/nginx:1");
    assert_eq!(spec.annotation(annotation::VOLUMES), None, "an empty annotation is none");
}

#[test]
fn a_standalone_container_is_its_own_pod() {
    let spec = Spec::from_value(json!({"ociVersion": "1.0.0", "root": {"path": "/abs"}}));
    assert_eq!(spec.container_type(), ContainerType::Standalone);
    assert_eq!(spec.pod("c1"), PodIdentity { id: "c1".into(), name: "c1".into(), ..PodIdentity::default() });
    assert_eq!(spec.rootfs(Path::new("/bundle")), Path::new("/abs"));
    assert!(!spec.terminal());
}

#[test]
fn unknown_fields_are_passed_through() {
    assert_eq!(spec().into_value().pointer("/futureField/kept"), Some(&json!(true)));
}

#[test]
fn the_last_of_ro_and_rw_counts() {
    let mounts = spec().mounts();
    let read_only: Vec<bool> = mounts.iter().map(Mount::is_read_only).collect();
    let binds: Vec<bool> = mounts.iter().map(Mount::is_bind).collect();
    assert_eq!((read_only, binds), (vec![false, true, false], vec![false, true, true]));
}

#[test]
fn joined_and_own_namespaces_differ() {
    let spec = spec();
    assert_eq!(spec.namespace_path("network"), Some(Path::new("/proc/7/ns/net")));
    assert_eq!(spec.namespace_path("pid"), None);
    assert!(spec.has_namespace("pid") && !spec.has_namespace("user"));
}

#[test]
fn cgroup_paths_of_both_drivers() {
    for (path, systemd, expected) in [
        ("/kubepods/pod1/c1", false, "/kubepods/pod1/c1"),
        ("", false, "/c1"),
        (
            "kubepods-besteffort-pod1.slice:cri-containerd:c1",
            true,
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-c1.scope",
        ),
        ("", true, "/system.slice/c1.scope"),
        ("-.slice:x:c1", true, "/x-c1.scope"),
    ] {
        let spec = Spec::from_value(json!({"linux": {"cgroupsPath": path}}));
        assert_eq!(spec.cgroup("c1", systemd).relative(), expected, "{path}");
        assert_eq!(spec.wants_systemd_cgroup(), path.contains(".slice:"), "{path}");
    }
}

#[test]
fn a_bundle_without_a_usable_config_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let read = || Spec::of_bundle(dir.path()).expect_err("unusable").to_string();
    assert!(read().contains("cannot read"), "{}", read());
    for (text, part) in [
        ("{", "is not JSON"),
        ("[]", "it is not an object"),
        ("{}", "ociVersion is missing"),
        (r#"{"ociVersion": "1.0.0"}"#, "root.path is missing"),
    ] {
        std::fs::write(dir.path().join("config.json"), text).expect("file");
        assert!(read().contains(part), "{}", read());
    }
}

#[test]
fn an_oversized_config_is_not_read() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = std::fs::File::create(dir.path().join("config.json")).expect("file");
    file.set_len(MAX_SIZE + 1).expect("sparse file");
    assert!(matches!(Spec::of_bundle(dir.path()), Err(SpecError::TooLarge { .. })));
}
