//! `checkpoint` and `restore`.

use std::fs;
use std::path::{Path, PathBuf};

use super::args::{CheckpointArgs, CriuArgs, Global, RestoreArgs};
use super::{Failure, cgroup, create};
use crate::checkpoint;
use crate::criu::{DumpOptions, RestoreOptions};
use crate::making::Request;
use crate::operate;
use crate::restore;
use crate::state::Container;

/// Absolute, since CRIU changes into its working directory.
fn places(criu: &CriuArgs) -> Result<(PathBuf, PathBuf), Failure> {
    let absolute = |path: &Path| -> Result<PathBuf, Failure> {
        std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()).into())
    };
    let images = absolute(&criu.image_path)?;
    let work = criu.work_path.as_deref().map(absolute).transpose()?.unwrap_or_else(|| images.clone());
    Ok((images, work))
}

pub(super) fn checkpoint(container: &Container, args: &CheckpointArgs) -> Result<(), Failure> {
    let (images, work) = places(&args.criu)?;
    let options = DumpOptions {
        pre_dump: args.pre_dump,
        leave_running: args.leave_running,
        tcp_established: args.criu.tcp_established,
        file_locks: args.criu.file_locks,
        external_sockets: args.criu.ext_unix_sk,
        shell_job: args.criu.shell_job,
        images,
        work,
        parent: args.parent_path.clone(),
    };
    let spec = create::read(&container.record.bundle)?;
    Ok(checkpoint::checkpoint(container, &spec, &options)?)
}

/// Brings it back; answers its code if we stay.
pub(super) fn restore(global: &Global, args: &RestoreArgs) -> Result<u8, Failure> {
    if !args.detach {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let bundle =
        fs::canonicalize(&args.bundle).map_err(|error| format!("{}: {error}", args.bundle.display()))?;
    let spec = create::read(&bundle)?;
    create::check_terminal(&spec, args.console_socket.as_deref())?;
    fs::create_dir_all(&global.root).map_err(|error| format!("{}: {error}", global.root.display()))?;
    let (images, work) = places(&args.criu)?;
    let options = RestoreOptions {
        tcp_established: args.criu.tcp_established,
        file_locks: args.criu.file_locks,
        external_sockets: args.criu.ext_unix_sk,
        shell_job: args.criu.shell_job,
        images,
        work,
    };
    let group = cgroup::place(&spec, create::name(&args.id)?, global.systemd_cgroup)?;
    let request = Request {
        id: create::name(&args.id)?,
        path: &global.root,
        bundle: &bundle,
        spec: &spec,
        cgroup: &group.path,
        console_socket: args.console_socket.as_deref(),
        capabilities: super::exec::own_capabilities()?,
        keyring: false,
        patience: create::PATIENCE,
    };
    let pid = restore::restore(&request, &options, &create::programs()?)?;
    create::tell(global, &args.id, args.pid_file.as_deref(), pid)?;
    if args.detach {
        return Ok(0);
    }
    let code = super::exec::wait(pid)?;
    operate::delete(&Container::find(&global.root, &args.id)?, true)?;
    Ok(code)
}
