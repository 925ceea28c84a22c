//! The cgroup of a container that liblxc does not make.

use std::fs;
use std::io;
use std::path::{Component, Path};

use crate::devices::{self, Filter};
use crate::making::{Error, HIERARCHY, Request, host};
use crate::resources::Setting;

/// Makes it with its limits; the groups above pass on the controllers that they have.
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
    restrict_devices(request, &device_filter(request)?)?;
    for (file, value) in settings {
        let file = path.join(file);
        host("write", format!("{value:?} to {}", file.display()), fs::write(&file, value))?;
    }
    Ok(())
}

/// Begins, beside everything else, what a process waits for when it is moved into another group: the kernel takes a lock
/// that is dear to take (a grace period of RCU, tens of milliseconds) unless somebody has just taken it
/// (`cgroup_threadgroup_rwsem`). liblxc's process is moved on the way of every container, and finds it taken.
///
/// Nothing depends on it: where it fails, liblxc waits itself.
pub(crate) fn announce_move() {
    // Into the group in which it is: nothing moves.
    std::thread::spawn(|| {
        let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
        own.map(|own| fs::write(Path::new(HIERARCHY).join(own).join("cgroup.procs"), "0"))
    });
}

/// The filter of devices for the container, which may be loaded before its group is there.
///
/// # Errors
/// For a rule that cannot be had, or when the kernel refuses.
pub(crate) fn device_filter(request: &Request<'_>) -> Result<Filter, Error> {
    let limits = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = limits.and_then(|limits| limits.devices().as_ref());
    let rules = devices::rules(rules.map_or(&[], Vec::as_slice))?;
    host("load", "the rules for devices", devices::load(&rules))
}

/// Lets the container use the devices of its spec only.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn restrict_devices(request: &Request<'_>, filter: &Filter) -> Result<(), Error> {
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
