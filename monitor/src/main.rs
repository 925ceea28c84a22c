//! Answers on a container's command socket until the container has ended: see `cryopod_lxc_monitor`.

use std::error::Error;
use std::os::fd::AsFd;
use std::process::ExitCode;

use cryopod_lxc_monitor::{Listener, Subject, take};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// `NAME LXCPATH CGROUP CLONE-FLAGS`; PID and listening socket come over standard input.
fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, path, cgroup, flags] = arguments.as_slice() else {
        return Err("usage: cryopod-lxc-monitor NAME LXCPATH CGROUP CLONE-FLAGS".into());
    };
    let Some((pid, socket)) = take(std::io::stdin().as_fd())? else { return Ok(()) };
    let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed()).ok_or("no PID")?, PidfdFlags::empty())?;
    let directory = std::path::Path::new(path).join(name);
    let subject = Subject {
        name: name.clone(),
        path: path.into(),
        pid,
        pidfd,
        cgroup: cgroup.into(),
        config: std::fs::read_to_string(directory.join("config"))?,
        clone_flags: flags.parse()?,
    };
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
