//! Answers on a container's command socket until the container has ended: see `cryopod_lxc_monitor`.

use std::error::Error;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use cryopod_lxc_monitor::{Listener, Subject};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `NAME LXCPATH PID CGROUP CLONE-FLAGS`; the listening socket is standard input.
fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, path, pid, cgroup, flags] = arguments.as_slice() else {
        return Err("usage: cryopod-lxc-monitor NAME LXCPATH PID CGROUP CLONE-FLAGS".into());
    };
    let number: i32 = pid.parse()?;
    let pidfd = pidfd_open(Pid::from_raw(number).ok_or("no PID")?, PidfdFlags::empty())?;
    let directory = std::path::Path::new(path).join(name);
    let subject = Subject {
        name: name.clone(),
        path: path.into(),
        pid: number.unsigned_abs(),
        pidfd,
        cgroup: cgroup.into(),
        config: std::fs::read_to_string(directory.join("config"))?,
        clone_flags: flags.parse()?,
    };
    let socket = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    Ok(Listener::new(subject, socket).serve()?)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cryopod-lxc-monitor: {error}");
            ExitCode::FAILURE
        }
    }
}
