//! From a process of the host to the process of the spec: identity, limits, filters, and then the program.
//!
//! The order is the one that the kernel demands: what needs privileges comes before the user, and the user before the
//! capabilities. The system call filter comes as late as may be, since it forbids our calls too.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::error::{Context, Error};
use crate::plan::{Capabilities, Process, User};
use crate::sys;

/// What OCI runtimes and shells use where nobody says otherwise.
const UMASK: u32 = 0o022;
/// Where a program without a slash is looked for if the process has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that is about to replace this one.
#[derive(Debug)]
pub struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Limits and scores that only root may set; the working directory may be one that only root can enter or make.
///
/// # Errors
/// See [`Error`].
pub fn prepare(process: &Process) -> Result<(), Error> {
    if let Some(score) = process.oom_score_adj {
        let path = "/proc/self/oom_score_adj";
        std::fs::write(path, score.to_string()).on("set the OOM score in", path)?;
    }
    for limit in &process.rlimits {
        sys::set_rlimit(limit).on("set resource limit", limit.resource)?;
    }
    if let Some(priority) = process.io_priority {
        sys::set_io_priority(priority).step("set the I/O priority")?;
    }
    if let Some(personality) = process.personality {
        sys::set_personality(personality).step("set the personality")?;
    }
    own_null()?;
    own_streams(process.user.uid)?;
    if process.cwd.is_absolute() && !process.cwd.exists() {
        std::fs::create_dir_all(&process.cwd).on("make the working directory", process.cwd.display())?;
    }
    Ok(())
}

/// Becomes the user with these capabilities, and finds the program.
///
/// # Errors
/// See [`Error`]; for a program that is not there as well.
pub fn become_user(process: &Process) -> Result<Program, Error> {
    if let Some(profile) = &process.apparmor {
        apparmor(profile)?;
    }
    bound(process.capabilities)?;
    // It takes a privilege that is about to go; with no_new_privs it takes none, and is left until the very end.
    if let (false, Some(filter)) = (process.no_new_privileges, &process.seccomp) {
        sys::seccomp(filter).step("install the system call filter")?;
    }
    thread::set_keep_capabilities(true).step("keep capabilities over the change of the user")?;
    identity(&process.user)?;
    thread::set_keep_capabilities(false).step("keep capabilities over the change of the user")?;
    if process.no_new_privileges {
        thread::set_no_new_privs(true).step("set no_new_privs")?;
    }
    capabilities(process.capabilities)?;
    std::env::set_current_dir(&process.cwd).on("enter the working directory", process.cwd.display())?;
    find(process)
}

/// Replaces this program; what comes back is the reason why not.
pub fn run(process: &Process, program: &Program) -> Error {
    sys::default_signals();
    if process.no_new_privileges
        && let Some(filter) = &process.seccomp
        && let Err(error) = sys::seccomp(filter).step("install the system call filter")
    {
        return error;
    }
    let error = sys::execve(&program.path, &program.args, &program.env);
    Error { step: "execute", object: program.path.to_string_lossy().into_owned(), source: error }
}

/// The host's null device is on a mount that the container does not have: a checkpoint could not name it. Its own is the same
/// device.
fn own_null() -> Result<(), Error> {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
    // Major 1, minor 3 (Linux, Documentation/admin-guide/devices.txt).
    let null = rustix::fs::makedev(1, 3);
    let is_null = |stream| rustix::fs::fstat(stream).is_ok_and(|found| found.st_rdev == null);
    if ![stdin(), stdout(), stderr()].into_iter().any(is_null) {
        return Ok(());
    }
    // An image without one keeps the host's.
    let Ok(own) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return Ok(()) };
    if !is_null(std::os::fd::AsFd::as_fd(&own)) {
        return Ok(());
    }
    let step = "open the null device of the container";
    if is_null(stdin()) {
        dup2_stdin(&own).step(step)?;
    }
    if is_null(stdout()) {
        dup2_stdout(&own).step(step)?;
    }
    if is_null(stderr()) {
        dup2_stderr(&own).step(step)?;
    }
    Ok(())
}

/// A program that is not root opens `/dev/stdout` like any other file. The null device is everybody's, and what cannot be
/// given away (a file on a read-only file system, another user namespace's) is as it is.
fn own_streams(uid: u32) -> Result<(), Error> {
    let null = std::fs::metadata("/dev/null").map(|meta| meta.rdev()).ok();
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let found = rustix::fs::fstat(stream).step("look at the standard streams")?;
        if found.st_uid == uid || Some(found.st_rdev) == null {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => {}
            Err(error) => return Err(error).step("give the standard streams to the user"),
        }
    }
    Ok(())
}

/// Programs expect one, specs do not have it, and every runtime sets it: by the container's passwd file, else the root.
fn home(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let (number, home) = (fields.get(2)?, fields.get(5)?);
        (number.parse() == Ok(uid) && !home.is_empty()).then(|| (*home).to_owned())
    };
    passwd.lines().find_map(of).unwrap_or_else(|| "/".to_owned())
}

fn apparmor(profile: &str) -> Result<(), Error> {
    let text = format!("exec {profile}");
    let current = "/proc/self/attr/apparmor/exec";
    // Kernels before 5.8 have only the older place.
    let path = if Path::new(current).exists() { current } else { "/proc/self/attr/exec" };
    std::fs::write(path, text).on("choose the AppArmor profile", profile)
}

fn identity(user: &User) -> Result<(), Error> {
    let groups: Vec<_> = user.additional_gids.iter().map(|&gid| Gid::from_raw(gid)).collect();
    // A user namespace may forbid it, which is right if there is nothing to set.
    let denied = std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    if !(groups.is_empty() && denied) {
        thread::set_thread_groups(&groups).step("set the additional groups")?;
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    thread::set_thread_res_gid(gid, gid, gid).on("become group", user.gid)?;
    thread::set_thread_res_uid(uid, uid, uid).on("become user", user.uid)?;
    rustix::process::umask(Mode::from_raw_mode(user.umask.unwrap_or(UMASK)));
    Ok(())
}

fn bound(wanted: Capabilities) -> Result<(), Error> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match thread::capability_is_in_bounding_set(capability) {
            Ok(true) if wanted.bounding >> number & 1 == 0 => {
                thread::remove_capability_from_bounding_set(capability).on("drop capability", number)?;
            }
            Ok(_) => {}
            // The kernel has fewer than we could name.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error).on("look at capability", number),
        }
    }
    Ok(())
}

fn capabilities(wanted: Capabilities) -> Result<(), Error> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(wanted.effective),
        permitted: CapabilitySet::from_bits_retain(wanted.permitted),
        inheritable: CapabilitySet::from_bits_retain(wanted.inheritable),
    };
    thread::set_capabilities(None, sets).step("set the capabilities")?;
    thread::clear_ambient_capability_set().step("clear the ambient capabilities")?;
    // The kernel has no ambient capability that is not both, and specs of `crun spec` name some: they are without effect under
    // every runtime.
    let ambient = wanted.ambient & wanted.permitted & wanted.inheritable;
    for number in (0..64).filter(|number| ambient >> number & 1 == 1) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        thread::configure_capability_in_ambient_set(capability, true)
            .on("raise ambient capability", number)?;
    }
    Ok(())
}

/// As `execvp` would, but said before the container is called ready.
fn find(process: &Process) -> Result<Program, Error> {
    let text = |string: &String| CString::new(string.as_bytes()).on("pass on", format!("{string:?}"));
    let args = process.args.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let mut env = process.env.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    if !process.env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(text(&format!("HOME={}", home(process.user.uid)))?);
    }
    let missing = || io::Error::from_raw_os_error(libc::ENOENT);
    let name = process.args.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(missing).step("find the program: the process has no arguments")?;
    let path = if name.contains('/') {
        executable(Path::new(name)).map(|()| PathBuf::from(name)).on("execute", name)?
    } else {
        let dirs =
            process.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(PATH);
        let mut refused = None;
        let found = dirs.split(':').find_map(|dir| {
            let path = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
            match executable(&path) {
                Ok(()) => Some(path),
                Err(error) => {
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        refused = Some(error);
                    }
                    None
                }
            }
        });
        found.ok_or_else(|| refused.unwrap_or_else(missing)).on("find in PATH", name)?
    };
    Ok(Program { path: text(&path.to_string_lossy().into_owned())?, args, env })
}

fn executable(path: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() || meta.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}
