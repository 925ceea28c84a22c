use serde_json::{Value, json};

use super::*;

/// A spec as small as possible, with some fields replaced.
fn spec(change: impl FnOnce(&mut Value)) -> Spec {
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "pod",
        "process": { "user": { "uid": 5, "gid": 6 }, "args": ["a", "b c"], "cwd": "/srv", "env": ["A=1"] },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/etc/hosts", "source": "hosts", "type": "bind", "options": ["rbind", "ro"] },
            { "destination": "sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }
        ],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "uts" }, { "type": "mount" }] }
    });
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

fn made(change: impl FnOnce(&mut Value)) -> Result<Draft, Error> {
    draft(&spec(change), &Host { bundle: Path::new("/bundle"), capabilities: u64::MAX })
}

#[test]
fn a_pods_container() {
    let Draft { plan, trees } = made(|_| ()).unwrap();
    assert_eq!(plan.process.args, ["a", "b c"]);
    assert_eq!((plan.process.user.uid, plan.hostname.as_deref()), (5, Some("pod")));
    assert!(plan.files.own_dev && plan.files.readonly_root && !plan.files.bind_devices);
    assert_eq!(plan.files.devices.len(), 6);
    assert_eq!(trees, [Tree { source: "/bundle/hosts".into(), reach: Bind::Recursive, ids: None }]);
    assert_eq!(plan.files.mounts.first().unwrap().what, What::Early { fstype: "proc".into() });
    let cgroup = plan.files.mounts.last().unwrap();
    assert_eq!(cgroup.destination, Path::new("/sys/fs/cgroup"));
    assert_eq!(cgroup.what, What::Filesystem { fstype: "cgroup2".into(), source: "cgroup".into() });
}

#[test]
fn a_host_name_needs_a_namespace_of_its_own() {
    let shared = made(|spec| spec["linux"]["namespaces"][1]["path"] = json!("/proc/7/ns/uts")).unwrap();
    assert_eq!(shared.plan.hostname, None);
}

#[test]
fn a_personality_is_a_number() {
    let of = |domain: &str| {
        made(|spec| spec["linux"]["personality"] = json!({ "domain": domain }))
            .unwrap()
            .plan
            .process
            .personality
    };
    assert_eq!((of("LINUX"), of("LINUX32")), (Some(0), Some(8)));
    assert_eq!(made(|_| ()).unwrap().plan.process.personality, None);
}

#[test]
fn in_a_user_namespace_devices_are_the_hosts() {
    let devices = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 420 }]);
    let plain = made(|spec| spec["linux"]["devices"] = devices.clone()).unwrap();
    let fuse = plain.plan.files.devices.last().unwrap();
    assert_eq!((fuse.mode, fuse.major, fuse.fd), (libc::S_IFCHR | 0o644, 10, None));
    let mapped = made(|spec| {
        spec["linux"]["devices"] = devices;
        for mappings in ["uidMappings", "gidMappings"] {
            spec["linux"][mappings] = json!([{ "containerID": 0, "hostID": 7, "size": 9 }]);
        }
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    })
    .unwrap();
    let fuse = mapped.plan.files.devices.last().unwrap();
    let tree = mapped.trees.get(usize::try_from(fuse.fd.unwrap()).unwrap()).unwrap();
    assert_eq!(tree.source, Path::new("/dev/fuse"));
    assert!(mapped.plan.files.bind_devices);
}

#[test]
fn owners_are_the_mounts_own_or_the_containers() {
    let ids = |change: &dyn Fn(&mut Value)| {
        let draft = made(|spec| {
            spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 7, "size": 9 }]);
            spec["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 8, "size": 9 }]);
            change(&mut spec["mounts"][2]);
        });
        draft.map(|draft| draft.trees.into_iter().next().unwrap().ids)
    };
    assert_eq!(ids(&|_| ()).unwrap(), None);
    let container = ids(&|mount| mount["options"] = json!(["rbind", "ridmap"])).unwrap().unwrap();
    assert_eq!((container.users, container.reach), (vec![(0, 7, 9)], Bind::Recursive));
    let own = json!([{ "containerID": 1, "hostID": 2, "size": 3 }]);
    let of_mount = ids(&|mount| {
        mount["uidMappings"] = own.clone();
        mount["gidMappings"] = own.clone();
    });
    assert_eq!(of_mount.unwrap().unwrap().groups, [(1, 2, 3)]);
    let half = ids(&|mount| mount["uidMappings"] = own.clone()).unwrap_err().to_string();
    assert!(half.starts_with("mounts[2].uidMappings"), "{half}");
}

#[test]
fn no_path_leads_out_of_the_container() {
    let draft = made(|spec| spec["mounts"][1]["destination"] = json!("/a/../../../b/./c")).unwrap();
    assert_eq!(draft.plan.files.mounts.get(1).unwrap().destination, Path::new("/b/c"));
}

#[test]
fn what_cannot_be_had_is_refused_by_the_name_of_its_field() {
    let refused = |field: &str, change: &dyn Fn(&mut Value)| {
        let error = made(change).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    };
    refused("linux.intelRdt", &|spec| spec["linux"]["intelRdt"] = json!({ "closID": "x" }));
    refused("process.selinuxLabel", &|spec| spec["process"]["selinuxLabel"] = json!("a:b:c"));
    refused("mounts[0].options", &|spec| spec["mounts"][0]["options"] = json!(["remount"]));
    refused("mounts[2].source", &|spec| spec["mounts"][2]["source"] = Value::Null);
    refused("mounts[1].type", &|spec| spec["mounts"][1]["type"] = Value::Null);
    refused("linux.rootfsPropagation", &|spec| spec["linux"]["rootfsPropagation"] = json!("much"));
    refused("process.cwd", &|spec| spec["process"]["cwd"] = json!("srv"));
    refused("process is missing", &|spec| spec["process"] = Value::Null);
    let device = json!([{ "path": "/dev/x", "type": "c", "major": -1, "minor": 0 }]);
    refused("linux.devices[0].major", &|spec| spec["linux"]["devices"] = device.clone());
}
