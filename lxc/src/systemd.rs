//! The systemd cgroup driver: a container's group is below a scope, which systemd makes around a process and removes when the
//! last one in it has ended.
//!
//! That process is one that only waits: the container's are made in a group of their own below, by us or by CRIU. `busctl` is part of
//! systemd, so no library of D-Bus is needed for the one call.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::making::{Error, HIERARCHY, host};
use crate::refusal::Refusal;

/// systemd answers within milliseconds; a node that boots takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Below the scope: the container's own group, as crun calls it, and where the process waits meanwhile.
const CONTAINER: &str = "container";
const WAITING: &str = "waiting";

/// What a `cgroupsPath` of the form `slice:prefix:name` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Where it belongs.
    pub slice: String,
    /// `prefix-name.scope`.
    pub scope: String,
}

impl Unit {
    /// Reads a path of the spec; an empty one is a scope in `system.slice`.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(path: &str, id: &str) -> Result<Self, Refusal> {
        let field = "linux.cgroupsPath";
        if path.is_empty() {
            return Ok(Self { slice: "system.slice".to_owned(), scope: format!("cryopod-{id}.scope") });
        }
        let wrong =
            || Refusal::of(field, format!("is {path:?}; with systemd it has the form slice:prefix:name"));
        let parts: Vec<&str> = path.split(':').collect();
        let &[slice, prefix, name] = parts.as_slice() else { return Err(wrong()) };
        let plain = |text: &str| !text.contains(['/', '\0', '\n']);
        if name.is_empty() || !parts.iter().all(|part| plain(part)) {
            return Err(wrong());
        }
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        if !slice.ends_with(".slice") {
            return Err(Refusal::of(field, format!("is {path:?}, and {slice:?} is no slice")));
        }
        let scope =
            if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        Ok(Self { slice: slice.to_owned(), scope })
    }
}

/// A scope with a process in it that keeps it until the container's are there. It ends with this process, or when this is
/// dropped.
#[derive(Debug)]
pub struct Scope {
    waiting: Child,
    path: PathBuf,
}

impl Scope {
    /// Makes it; `waiter` is a program that ends with its standard input.
    ///
    /// # Errors
    /// When systemd refuses, or is not there.
    pub fn start(unit: &Unit, waiter: &[String]) -> Result<Self, Error> {
        let [program, arguments @ ..] = waiter else {
            return Err(Refusal::of("launcher", "is not configured").into());
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let waiting = host("run", program, command.spawn())?;
        let mut scope = Self { waiting, path: PathBuf::new() };
        let pid = scope.waiting.id();
        ask(unit, pid)?;
        scope.path = entered(unit, pid)?;
        // A group with processes passes no controllers on.
        let waiting = Path::new(HIERARCHY).join(&scope.path).join(WAITING);
        host("make", waiting.display(), fs::create_dir(&waiting))?;
        let procs = waiting.join("cgroup.procs");
        host("write to", procs.display(), fs::write(&procs, pid.to_string()))?;
        Ok(scope)
    }

    /// The group for the container, below the root of the hierarchy.
    #[must_use]
    pub fn container(&self) -> PathBuf {
        self.path.join(CONTAINER)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.waiting.kill().ok();
        self.waiting.wait().ok();
        if self.path != Path::new("") {
            fs::remove_dir(Path::new(HIERARCHY).join(&self.path).join(WAITING)).ok();
        }
    }
}

fn ask(unit: &Unit, pid: u32) -> Result<(), Error> {
    let pid = pid.to_string();
    let manager =
        ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
    let properties: [&[&str]; 6] = [
        &["Description", "s", "cryopod LXC container"],
        &["Slice", "s", &unit.slice],
        &["Delegate", "b", "true"],
        &["DefaultDependencies", "b", "false"],
        // A scope whose processes were killed is not kept as failed.
        &["CollectMode", "s", "inactive-or-failed"],
        &["PIDs", "au", "1", &pid],
    ];
    let mut call = Command::new("busctl");
    call.arg("call").args(manager).args(["StartTransientUnit", "ssa(sv)a(sa(sv))", &unit.scope, "fail"]);
    call.arg(properties.len().to_string()).args(properties.concat()).arg("0");
    let output = host("run", "busctl", call.stdin(Stdio::null()).output())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    host("ask systemd for", &unit.scope, Err(io::Error::other(said)))
}

/// The call only queues a job.
fn entered(unit: &Unit, pid: u32) -> Result<PathBuf, Error> {
    let until = Instant::now() + PATIENCE;
    let file = format!("/proc/{pid}/cgroup");
    loop {
        let text = host("read", &file, fs::read_to_string(&file))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        if Path::new(path).file_name().is_some_and(|name| name == unit.scope.as_str()) {
            return Ok(path.into());
        }
        if Instant::now() >= until {
            return host("wait for", &unit.scope, Err(io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_slice_and_scope() {
        let of = |path: &str| Unit::parse(path, "c1").map(|unit| (unit.slice, unit.scope));
        let unit = |slice: &str, scope: &str| Ok((slice.to_owned(), scope.to_owned()));
        assert_eq!(
            of("kubepods-podx.slice:cri-containerd:c1"),
            unit("kubepods-podx.slice", "cri-containerd-c1.scope")
        );
        assert_eq!(of("::c1"), unit("system.slice", "c1.scope"));
        assert_eq!(of(""), unit("system.slice", "cryopod-c1.scope"));
        for path in ["/a/b", "a.slice:b", "a.slice:b:", "a:b:c", "a.slice:b:../c", "a.slice:b:c:d"] {
            assert_eq!(of(path).unwrap_err().field, "linux.cgroupsPath", "{path}");
        }
    }
}
