//! The cgroup of a container.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Component, Path};

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType};

use crate::devices;
use crate::making::{Error, HIERARCHY, Request, host};
use crate::plan::namespace;
use crate::resources::Setting;

/// Makes it with its limits but for devices; the groups above pass on the controllers that they have.
///
/// # Errors
/// When it is there already, or the kernel does not take a limit.
pub(crate) fn make(request: &Request<'_>, settings: &[Setting]) -> Result<(), Error> {
    let mut path = Path::new(HIERARCHY).to_owned();
    let mut names =
        request.cgroup.components().filter(|part| matches!(part, Component::Normal(_))).peekable();
    while let Some(name) = names.next() {
        pass_on(&path);
        path.push(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && names.peek().is_some() => {}
            result => host("make", path.display(), result)?,
        }
    }
    for (file, value) in settings {
        let file = path.join(file);
        host("write", format!("{value:?} to {}", file.display()), fs::write(&file, value))?;
    }
    delegate(request, &path)
}

/// The root of a user namespace may make groups below its own. The limits stay ours (cgroup v2, "Delegation").
fn delegate(request: &Request<'_>, group: &Path) -> Result<(), Error> {
    if namespace(request.spec, LinuxNamespaceType::User).is_none() {
        return Ok(());
    }
    let linux = request.spec.linux().as_ref();
    let root = |mappings: Option<&Vec<LinuxIdMapping>>| {
        let covers = |mapping: &&LinuxIdMapping| mapping.container_id() == 0 && mapping.size() > 0;
        mappings.into_iter().flatten().find(covers).map(LinuxIdMapping::host_id)
    };
    let user = root(linux.and_then(|linux| linux.uid_mappings().as_ref()));
    let group_id = root(linux.and_then(|linux| linux.gid_mappings().as_ref()));
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        let file = group.join(file);
        host("give to the container's root", file.display(), chown(&file, user, group_id))?;
    }
    Ok(())
}

/// Lets the container use the devices of its spec only.
///
/// # Errors
/// For a rule that cannot be had, or when the kernel refuses.
pub(crate) fn restrict_devices(request: &Request<'_>) -> Result<(), Error> {
    let limits = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = limits.and_then(|limits| limits.devices().as_ref());
    let rules = devices::rules(rules.map_or(&[], Vec::as_slice))?;
    let filter = host("load", "the rules for devices", devices::load(&rules))?;
    let group = Path::new(HIERARCHY).join(request.cgroup);
    host("restrict devices in", group.display(), filter.attach(&group))
}

/// One by one: a controller that cannot be passed on keeps the others from nothing, and a limit that needs it says so.
fn pass_on(path: &Path) {
    let controllers = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        fs::write(path.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}
