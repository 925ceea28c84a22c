//! `exec`, and waiting for processes.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use cryopod_init::plan::Terminal;
use cryopod_init::report::Report;
use oci_spec::runtime::{Process, Spec};
use rustix::io::FdFlags;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::Failure;
use super::args::ExecArgs;
use crate::plan::{self, Host};
use crate::seccomp;
use crate::state::{Container, Status};

/// Runs it; answers its code, or 0 at once if nobody stays.
pub(super) fn exec(container: &Container, args: &ExecArgs) -> Result<u8, Failure> {
    let status = container.status();
    let first = container.process().filter(|_| matches!(status, Status::Running | Status::Created));
    let first =
        first.ok_or_else(|| format!("container '{}' is {status:?}: nothing can be run in it", args.id))?;
    let text = fs::read_to_string(container.record.bundle.join("config.json"))?;
    let spec: Spec = serde_json::from_str(&text)?;
    let wanted = process(&spec, args)?;
    let host = Host { bundle: &container.record.bundle, capabilities: own_capabilities()? };
    let mut plan = plan::process(&wanted, &host, "process")?;
    // The container's own filter: the spec has one for all its processes.
    if let Some(filter) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
        plan.seccomp = Some(seccomp::compile(filter)?);
    }
    let console = args.console_socket.as_ref().map(UnixStream::connect).transpose()?;
    if wanted.terminal() == Some(true) {
        let console = console.as_ref().ok_or("a terminal needs --console-socket, which says who gets it")?;
        let size = wanted.console_size();
        let side = |side: u64| u16::try_from(side).unwrap_or_default();
        plan.terminal = Some(Terminal {
            socket: console.as_raw_fd(),
            width: size.map_or(0, |size| side(size.width())),
            height: size.map_or(0, |size| side(size.height())),
            console: false,
        });
    }
    // It becomes our child when the process that entered has gone; without us, the caller's.
    if !args.detach {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let plan_file = crate::create::written(&plan)?;
    let (mut report, theirs) = UnixStream::pair()?;
    let cgroup = File::open(&container.record.cgroup)?;
    let handed: Vec<&dyn AsFd> = vec![&plan_file, &theirs, &first, &cgroup];
    for fd in handed.into_iter().chain(console.iter().map(|console| console as &dyn AsFd)) {
        rustix::io::fcntl_setfd(fd.as_fd(), FdFlags::empty())?;
    }
    let numbers = [plan_file.as_raw_fd(), theirs.as_raw_fd(), first.as_raw_fd(), cgroup.as_raw_fd()];
    let program = crate::create::sealed(&super::create::programs()?.init)?;
    let mut entering = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0("cryopod-init")
        .arg("exec")
        .args(numbers.map(|number| number.to_string()))
        .arg(container.record.clone_flags.to_string())
        .spawn()?;
    drop(theirs);
    let said = Report::hear(&mut report)?;
    entering.wait()?;
    let pid = match said {
        Some(Report::Running { pid }) => pid,
        Some(Report::Failed { message, .. }) => return Err(message.into()),
        Some(_) | None => return Err("the process went away without a word".into()),
    };
    if let Some(path) = &args.pid_file {
        fs::write(path, pid.to_string()).map_err(|error| format!("write {}: {error}", path.display()))?;
    }
    if args.detach { Ok(0) } else { wait(pid) }
}

/// The process that is asked for: from a file, or the container's with another command.
fn process(spec: &Spec, args: &ExecArgs) -> Result<Process, Failure> {
    if let Some(path) = &args.process {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        return Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    if args.command.is_empty() {
        return Err("no command: say one, or --process FILE".into());
    }
    let mut process = spec.process().clone().ok_or("config.json has no process")?;
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if let Some((uid, gid)) = args.user {
        let mut user = process.user().clone();
        user.set_uid(uid);
        user.set_gid(gid.unwrap_or(user.gid()));
        process.set_user(user);
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    Ok(process)
}

/// Waits for a child; answers its code, or 128 and the signal, as shells do.
pub(super) fn wait(pid: u32) -> Result<u8, Failure> {
    let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no PID")?;
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                let code =
                    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Ok(u8::try_from(code.unwrap_or(1)).unwrap_or(1));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("wait for process {}: {error}", pid.as_raw_nonzero()).into()),
        }
    }
}

/// What we may have, nobody here may have more.
pub(super) fn own_capabilities() -> Result<u64, Failure> {
    let path = Path::new("/proc/self/status");
    let text = fs::read_to_string(path)?;
    let bits =
        text.lines().find_map(|line| line.strip_prefix("CapPrm:")).ok_or("no CapPrm in /proc/self/status")?;
    Ok(u64::from_str_radix(bits.trim(), 16)?)
}
