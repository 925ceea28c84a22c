//! The terminal of a process: made in the container's own devpts, its master sent to whoever asked for it (OCI runtimes'
//! `--console-socket`).

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::pty::{OpenptFlags, grantpt, ptsname, unlockpt};

use crate::error::{Context, Error};
use crate::mounts::{attach, place, tree};
use crate::plan::Terminal;
use crate::sys;

/// Makes a terminal, sends its master and makes it standard input, output and error of this process.
///
/// # Errors
/// See [`Error`].
pub fn make(terminal: &Terminal, uid: u32) -> Result<(), Error> {
    let socket = sys::inherited(terminal.socket).step("take over the console socket")?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master =
        open("/dev/ptmx", flags).or_else(|_| rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY));
    let master = master.step("make a terminal")?;
    grantpt(&master).and_then(|()| unlockpt(&master)).step("make a terminal")?;
    let name = ptsname(&master, Vec::new()).step("find the terminal")?;
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    if terminal.width > 0 && terminal.height > 0 {
        sys::set_size(master.as_fd(), terminal.width, terminal.height)
            .step("set the size of the terminal")?;
    }
    let slave = open(&path, flags).on("open the terminal", path.display())?;
    // Programs expect to own their terminal; its group stays.
    std::os::unix::fs::chown(&path, Some(uid), None).on("give an owner to", path.display())?;
    if terminal.console {
        let console = Path::new("/dev/console");
        place(console, false)?;
        let bound = tree(&path, OpenTreeFlags::OPEN_TREE_CLONE).on("clone the terminal", path.display())?;
        attach(bound.as_fd(), console)?;
    }
    send_master(&socket, &master)?;
    rustix::process::setsid().ok(); // Only the leader of a session already is refused.
    sys::control_terminal(slave.as_fd()).step("take the terminal as controlling one")?;
    rustix::stdio::dup2_stdin(&slave).step("use the terminal")?;
    rustix::stdio::dup2_stdout(&slave).step("use the terminal")?;
    rustix::stdio::dup2_stderr(&slave).step("use the terminal")
}

fn open(path: impl AsRef<Path>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path.as_ref(), flags, Mode::empty())
}

/// Sends the master of a terminal to whoever asked for it.
///
/// # Errors
/// When nobody takes it.
pub fn send_master(socket: &OwnedFd, master: &OwnedFd) -> Result<(), Error> {
    let fds = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    // runc and crun send its name along, and some readers want a byte.
    let text = [IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(socket, &text, &mut ancillary, SendFlags::NOSIGNAL)
        .map(|_| ())
        .step("send the terminal over the console socket")
}
