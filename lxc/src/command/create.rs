//! `create` and `run`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::Spec;

use super::args::{CreateArgs, Global};
use super::{Failure, cgroup};
use crate::create;
use crate::making::{Programs, Request};
use crate::operate;
use crate::state::Container;

/// Mounts of a pod are done within a second; a node that is full takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes it; answers the PID.
pub(super) fn create(global: &Global, args: &CreateArgs) -> Result<u32, Failure> {
    let bundle =
        fs::canonicalize(&args.bundle).map_err(|error| format!("{}: {error}", args.bundle.display()))?;
    let spec = read(&bundle)?;
    check_terminal(&spec, args.console_socket.as_deref())?;
    fs::create_dir_all(&global.root).map_err(|error| format!("{}: {error}", global.root.display()))?;
    let group = cgroup::place(&spec, name(&args.id)?, global.systemd_cgroup)?;
    let request = Request {
        id: name(&args.id)?,
        path: &global.root,
        bundle: &bundle,
        spec: &spec,
        cgroup: &group.path,
        console_socket: args.console_socket.as_deref(),
        capabilities: super::exec::own_capabilities()?,
        keyring: !args.no_new_keyring,
        patience: PATIENCE,
    };
    let pid = create::create(&request, &programs()?)?;
    tell(global, &args.id, args.pid_file.as_deref(), pid)?;
    Ok(pid)
}

/// A terminal needs somebody who gets it, and nobody gets one that is not there.
pub(super) fn check_terminal(spec: &Spec, console_socket: Option<&Path>) -> Result<(), Failure> {
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    match (terminal, console_socket) {
        (true, None) => Err("process.terminal is set: --console-socket says who gets the terminal".into()),
        (false, Some(_)) => Err("--console-socket is given, but process.terminal is not set".into()),
        _ => Ok(()),
    }
}

/// Writes the PID where the caller looks for it.
pub(super) fn tell(global: &Global, id: &str, pid_file: Option<&Path>, pid: u32) -> Result<(), Failure> {
    let Some(path) = pid_file else { return Ok(()) };
    fs::write(path, pid.to_string()).map_err(|error| {
        // Nobody could find it.
        if let Ok(container) = Container::find(&global.root, id) {
            operate::delete(&container, true).ok();
        }
        format!("write {}: {error}", path.display()).into()
    })
}

/// Makes it, starts it, stays; answers the code of its first process.
pub(super) fn run(global: &Global, args: &CreateArgs) -> Result<u8, Failure> {
    let pid = create(global, args)?;
    let container = Container::find(&global.root, &args.id)?;
    if let Err(error) = operate::start(&container) {
        operate::delete(&container, true).ok();
        return Err(error.into());
    }
    if args.detach {
        return Ok(0);
    }
    let code = super::exec::wait(pid)?;
    if !args.keep {
        operate::delete(&container, true)?;
    }
    Ok(code)
}

pub(super) fn read(bundle: &Path) -> Result<Spec, Failure> {
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// What runc and the LXC tools both take as a name, and is one component of a path.
pub(super) fn name(id: &str) -> Result<&str, Failure> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
    if id.is_empty() || !id.chars().all(fine) || id.starts_with('.') {
        return Err(
            format!("{id:?} is no name of a container: letters, digits and any of _ . - + are").into()
        );
    }
    Ok(id)
}

/// Beside this program, where they are installed together.
pub(super) fn programs() -> Result<Programs, Failure> {
    let own = std::env::current_exe()?;
    let beside = |name: &str| -> Result<PathBuf, Failure> {
        let path = own.with_file_name(name);
        if path.exists() {
            Ok(path)
        } else {
            Err(format!("{} is not there: reinstall cryopod", path.display()).into())
        }
    };
    Ok(Programs { init: beside("cryopod-init")?, monitor: beside("cryopod-lxc-monitor")? })
}
