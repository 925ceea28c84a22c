//! The spec as `cryopod-init` carries it out: mounts, devices, paths, and the process.

mod devices;
mod enter;
mod mounts;

use std::path::{Path, PathBuf};

use cryopod_init::options::Bind;
use cryopod_init::plan::{self, Files, Plan, What};
use oci_spec::runtime::{LinuxNamespaceType, LinuxPersonalityDomain, Process, Spec};

use crate::capabilities;
use crate::refusal::Refusal;
use crate::rlimits;
use crate::seccomp;
use devices::{default_devices, device};
pub use enter::lines;
use mounts::{absolute, place, propagation};
pub use mounts::{bound, sources};

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
    let mut mounts = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        mounts.push(mounts::mount(index, mount, linux, host, &mut trees)?);
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
    let files = Files {
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
        enter: Some(enter::enter(spec)?),
        files,
        hostname: spec.hostname().clone().filter(|_| own_uts),
        domainname: spec.domainname().clone().filter(|_| own_uts),
        sysctl: linux.sysctl().iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect(),
        hooks: Vec::new(),
        process,
    };
    Ok(Draft { plan, trees })
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
mod tests;
