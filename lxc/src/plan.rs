//! The spec as `cryopod-init` carries it out: mounts, devices, paths, and the process.

use std::path::{Component, Path, PathBuf};

use cryopod_init::options::{Bind, Options};
use cryopod_init::plan::{self, Files, Plan, What};
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, LinuxPersonalityDomain, Mount,
    Process, Spec,
};

use crate::capabilities;
use crate::refusal::Refusal;
use crate::rlimits;
use crate::seccomp;

/// linux/personality.h
const PER_LINUX32: u64 = 8;

/// What the host knows and a spec does not say.
#[derive(Debug, Clone)]
pub struct Host<'a> {
    /// Directory of the bundle, absolute: sources of mounts may be relative to it.
    pub bundle: &'a Path,
    /// Capabilities of whoever makes the container, one bit each.
    pub capabilities: u64,
}

/// A piece of the host's tree that the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Absolute.
    pub source: PathBuf,
    /// With what is mounted below, or without.
    pub reach: Bind,
    /// Owners of its files other than on disk.
    pub ids: Option<Ids>,
}

/// How ids on disk become those of a container: first id, what it becomes, how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Of users.
    pub users: Vec<(u32, u32, u32)>,
    /// Of groups.
    pub groups: Vec<(u32, u32, u32)>,
    /// Also in what is mounted below.
    pub reach: Bind,
}

/// The plan, with places in `trees` where it will have descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its `fd` are indices into `trees`.
    pub plan: Plan,
    /// To be cloned by the host, in this order.
    pub trees: Vec<Tree>,
    /// The mounts that liblxc makes, with their types: `proc` and `sysfs`, and what it needs meanwhile.
    pub by_liblxc: Vec<(PathBuf, String)>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not with LXC.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The system call filter.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
}

/// Makes a plan for the container's first process.
///
/// # Errors
/// See [`Error`].
pub fn draft(spec: &Spec, host: &Host<'_>) -> Result<Draft, Error> {
    refuse(spec)?;
    let missing = |field: &str| Refusal::of(field, "is missing");
    let process = spec.process().as_ref().ok_or_else(|| missing("process"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
    let mut trees = Vec::new();
    let mut by_liblxc = Vec::new();
    let mut mounts = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let made = self::mount(index, mount, linux, host, &mut trees)?;
        if made.what == What::Mounted {
            let kind = mount.typ().clone().unwrap_or_default();
            by_liblxc.push((made.destination.clone(), kind));
        }
        mounts.push(made);
    }
    let own_dev = mounts
        .iter()
        .any(|mount| mount.destination == Path::new("/dev") && matches!(mount.what, What::Filesystem { .. }));
    let in_user_namespace = has(spec, LinuxNamespaceType::User);
    let mut devices = if own_dev { default_devices() } else { Vec::new() };
    for (index, wanted) in linux.devices().iter().flatten().enumerate() {
        let wanted = device(index, wanted)?;
        devices.retain(|device| device.path != wanted.path);
        devices.push(wanted);
    }
    if in_user_namespace {
        for device in &mut devices {
            device.fd =
                Some(place(&mut trees, Tree { source: device.path.clone(), reach: Bind::One, ids: None }));
        }
    }
    let paths = |paths: &Option<Vec<String>>| paths.iter().flatten().map(PathBuf::from).collect();
    // liblxc puts links into a /dev, which must not be the image's, and the init is executed by its place in a /proc.
    let mut temporary = vec![PathBuf::from("/dev")];
    by_liblxc.push(("/dev".into(), "tmpfs".to_owned()));
    if !by_liblxc.iter().any(|(destination, _)| destination == Path::new("/proc")) {
        temporary.push("/proc".into());
        by_liblxc.push(("/proc".into(), "proc".to_owned()));
    }
    let files = Files {
        temporary,
        mounts,
        devices,
        own_dev,
        bind_devices: in_user_namespace,
        masked: paths(linux.masked_paths()),
        readonly: paths(linux.readonly_paths()),
        readonly_root: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
        root_propagation: propagation(linux.rootfs_propagation().as_deref())?,
    };
    let own_uts = has_own(spec, LinuxNamespaceType::Uts);
    let mut process = self::process(process, host, "process")?;
    process.personality = linux.personality().as_ref().map(|wanted| match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    });
    if let Some(filter) = linux.seccomp() {
        process.seccomp = Some(seccomp::compile(filter)?);
    }
    let plan = Plan {
        files,
        hostname: spec.hostname().clone().filter(|_| own_uts),
        domainname: spec.domainname().clone().filter(|_| own_uts),
        sysctl: linux.sysctl().iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect(),
        hooks: Vec::new(),
        process,
    };
    Ok(Draft { plan, trees, by_liblxc })
}

/// Whether the container has such a namespace, its own or another's.
fn has(spec: &Spec, wanted: LinuxNamespaceType) -> bool {
    namespace(spec, wanted).is_some()
}

/// Whether it is its own.
fn has_own(spec: &Spec, wanted: LinuxNamespaceType) -> bool {
    namespace(spec, wanted).is_some_and(|path| path.is_none())
}

pub(crate) fn namespace(spec: &Spec, wanted: LinuxNamespaceType) -> Option<Option<&PathBuf>> {
    let all = spec.linux().as_ref()?.namespaces().as_ref()?;
    all.iter().find(|namespace| namespace.typ() == wanted).map(|namespace| namespace.path().as_ref())
}

/// What nobody here carries out.
fn refuse(spec: &Spec) -> Result<(), Refusal> {
    let linux = spec.linux().as_ref();
    let process = spec.process().as_ref();
    let without = "is not supported by the LXC backend";
    let given = [
        ("windows", spec.windows().is_some(), "is for another system"),
        ("solaris", spec.solaris().is_some(), "is for another system"),
        ("vm", spec.vm().is_some(), "is for virtual machines"),
        ("linux.intelRdt", linux.is_some_and(|linux| linux.intel_rdt().is_some()), without),
        ("linux.memoryPolicy", linux.is_some_and(|linux| linux.memory_policy().is_some()), without),
        ("linux.netDevices", linux.is_some_and(|linux| linux.net_devices().is_some()), without),
        ("linux.mountLabel", named(linux.and_then(|linux| linux.mount_label().as_ref())), "needs SELinux"),
        (
            "process.selinuxLabel",
            named(process.and_then(|process| process.selinux_label().as_ref())),
            "needs SELinux",
        ),
        ("process.scheduler", process.is_some_and(|process| process.scheduler().is_some()), without),
        (
            "process.execCPUAffinity",
            process.is_some_and(|process| process.exec_cpu_affinity().is_some()),
            without,
        ),
    ];
    match given.into_iter().find(|(_, given, _)| *given) {
        Some((field, _, why)) => Err(Refusal::of(field, why)),
        None => Ok(()),
    }
}

fn named(label: Option<&String>) -> bool {
    label.is_some_and(|label| !label.is_empty())
}

fn place(trees: &mut Vec<Tree>, tree: Tree) -> i32 {
    trees.push(tree);
    i32::try_from(trees.len() - 1).unwrap_or(i32::MAX)
}

fn mount(
    index: usize,
    wanted: &Mount,
    linux: &Linux,
    host: &Host<'_>,
    trees: &mut Vec<Tree>,
) -> Result<plan::Mount, Refusal> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let destination = absolute(wanted.destination());
    let options = wanted.options().iter().flatten().map(String::as_str);
    let options = Options::parse(options).map_err(|error| {
        Refusal::of(field("options"), format!("has {:?}, which is not supported", error.0))
    })?;
    let ids = ids(wanted, options.idmap, linux).map_err(|why| Refusal::of(field("uidMappings"), why))?;
    let kind = wanted.typ().as_deref().unwrap_or_default();
    let what = match (kind, options.bind) {
        (_, Some(reach)) => {
            tree(wanted, reach, ids, host, trees).ok_or_else(|| Refusal::of(field("source"), "is missing"))?
        }
        ("bind", None) => tree(wanted, Bind::One, ids, host, trees)
            .ok_or_else(|| Refusal::of(field("source"), "is missing"))?,
        (_, None) if ids.is_some() => {
            return Err(Refusal::of(field("uidMappings"), "is for bind mounts only"));
        }
        // The only ones that a user namespace cannot mount after the old root has gone.
        ("proc" | "sysfs", None) => What::Mounted,
        ("", None) => return Err(Refusal::of(field("type"), "is missing")),
        (kind, None) => {
            let source = wanted.source().as_ref().map(|source| source.display().to_string());
            // What runc.v2 clients have always called it.
            let fstype = if kind == "cgroup" { "cgroup2" } else { kind };
            What::Filesystem { fstype: fstype.to_owned(), source: source.unwrap_or_else(|| kind.to_owned()) }
        }
    };
    Ok(plan::Mount { destination, what, options })
}

fn tree(
    wanted: &Mount,
    reach: Bind,
    ids: Option<Ids>,
    host: &Host<'_>,
    trees: &mut Vec<Tree>,
) -> Option<What> {
    let source = host.bundle.join(wanted.source().as_ref()?);
    let directory = source.is_dir();
    Some(What::Tree { fd: place(trees, Tree { source, reach, ids }), directory })
}

/// The mount's own mappings; with the option `idmap` and none of its own, the container's (runtime spec, "Linux mount options").
fn ids(wanted: &Mount, option: Option<Bind>, linux: &Linux) -> Result<Option<Ids>, &'static str> {
    let all = |mappings: Option<&Vec<LinuxIdMapping>>| -> Vec<(u32, u32, u32)> {
        let each = mappings.into_iter().flatten();
        each.map(|mapping| (mapping.container_id(), mapping.host_id(), mapping.size())).collect()
    };
    let own = (all(wanted.uid_mappings().as_ref()), all(wanted.gid_mappings().as_ref()));
    let (users, groups) = match own {
        (users, groups) if users.is_empty() && groups.is_empty() => {
            if option.is_none() {
                return Ok(None);
            }
            (all(linux.uid_mappings().as_ref()), all(linux.gid_mappings().as_ref()))
        }
        own => own,
    };
    if users.is_empty() || groups.is_empty() {
        return Err("and gidMappings are needed both for a mount with other owners");
    }
    Ok(Some(Ids { users, groups, reach: option.unwrap_or(Bind::One) }))
}

/// In the container everything begins at its root, and `..` at the root is the root.
fn absolute(path: &Path) -> PathBuf {
    let mut absolute = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => absolute.push(name),
            Component::ParentDir => {
                absolute.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    absolute
}

/// Destinations of what the container gets of the host's tree, as the spec has them.
#[must_use]
pub fn bound(spec: &Spec) -> Vec<PathBuf> {
    sources(spec, Path::new("/")).into_iter().map(|(destination, _)| destination).collect()
}

/// The same with their sources.
#[must_use]
pub fn sources(spec: &Spec, bundle: &Path) -> Vec<(PathBuf, PathBuf)> {
    let bind = |mount: &&Mount| {
        let options = mount.options().iter().flatten();
        mount.typ().as_deref() == Some("bind")
            || options.into_iter().any(|option| option == "bind" || option == "rbind")
    };
    let mounts = spec.mounts().iter().flatten().filter(bind);
    mounts
        .filter_map(|mount| Some((absolute(mount.destination()), bundle.join(mount.source().as_ref()?))))
        .collect()
}

fn propagation(name: Option<&str>) -> Result<u64, Refusal> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(0) };
    let parsed = Options::parse([name]).ok().map(|options| options.propagation).filter(|flags| *flags != 0);
    parsed.ok_or_else(|| {
        Refusal::of("linux.rootfsPropagation", format!("is {name:?}, which is no propagation"))
    })
}

/// OCI runtime spec, "Default Devices"; `/dev/ptmx` is a link, `/dev/console` comes with a terminal.
fn default_devices() -> Vec<plan::Device> {
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

fn device(index: usize, wanted: &LinuxDevice) -> Result<plan::Device, Refusal> {
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

/// A process of a container, the first or a further one; `field` is where it stands. Its filter and its terminal come from
/// elsewhere.
///
/// # Errors
/// For what cannot be had.
pub fn process(wanted: &Process, host: &Host<'_>, field: &str) -> Result<plan::Process, Refusal> {
    if !wanted.cwd().is_absolute() {
        let why = format!("is {:?}, which is not absolute", wanted.cwd());
        return Err(Refusal::of(format!("{field}.cwd"), why));
    }
    let user = wanted.user();
    let io_priority = wanted.io_priority().as_ref().map(|wanted| {
        use oci_spec::runtime::IOPriorityClass::{IoprioClassBe, IoprioClassIdle, IoprioClassRt};
        let class = match wanted.class() {
            IoprioClassRt => 1,
            IoprioClassBe => 2,
            IoprioClassIdle => 3,
        };
        // linux/ioprio.h: the class above 13 bits of data.
        class << 13 | i32::try_from(wanted.priority().clamp(0, 7)).unwrap_or_default()
    });
    Ok(plan::Process {
        args: wanted.args().clone().unwrap_or_default(),
        env: wanted.env().clone().unwrap_or_default(),
        cwd: absolute(wanted.cwd()),
        user: plan::User {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
        },
        capabilities: capabilities::sets(wanted.capabilities().as_ref(), host.capabilities),
        rlimits: rlimits::limits(wanted.rlimits().as_deref().unwrap_or_default()),
        no_new_privileges: wanted.no_new_privileges().unwrap_or(false),
        oom_score_adj: wanted.oom_score_adj(),
        apparmor: wanted.apparmor_profile().clone().filter(|profile| !profile.is_empty()),
        seccomp: None,
        terminal: None,
        io_priority,
        personality: None,
    })
}

#[cfg(test)]
mod tests {
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
        let Draft { plan, trees, by_liblxc } = made(|_| ()).unwrap();
        assert_eq!(plan.process.args, ["a", "b c"]);
        assert_eq!((plan.process.user.uid, plan.hostname.as_deref()), (5, Some("pod")));
        assert!(plan.files.own_dev && plan.files.readonly_root && !plan.files.bind_devices);
        assert_eq!(plan.files.devices.len(), 6);
        assert_eq!(trees, [Tree { source: "/bundle/hosts".into(), reach: Bind::Recursive, ids: None }]);
        let dev = (PathBuf::from("/dev"), "tmpfs".to_owned());
        assert_eq!(by_liblxc, [(PathBuf::from("/proc"), "proc".to_owned()), dev]);
        assert_eq!(plan.files.temporary, [PathBuf::from("/dev")]);
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
        let devices =
            json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 420 }]);
        let plain = made(|spec| spec["linux"]["devices"] = devices.clone()).unwrap();
        let fuse = plain.plan.files.devices.last().unwrap();
        assert_eq!((fuse.mode, fuse.major, fuse.fd), (libc::S_IFCHR | 0o644, 10, None));
        let mapped = made(|spec| {
            spec["linux"]["devices"] = devices;
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
}
