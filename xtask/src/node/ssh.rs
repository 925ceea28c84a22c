//! The ssh and scp calls.
//!
//! The shared connection (ssh's ControlMaster) is opened by a call of its own with all streams closed: one opened on
//! the way by a client would keep that client's stderr open, and whoever reads it to its end would wait forever.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, Node};

/// What a command in the node gave back.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Exit code; 255 when ssh itself failed.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// The last lines of what it said, for a message.
    pub(crate) fn last_words(&self) -> String {
        last_words(if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr })
    }
}

fn last_words(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n  ")
}

fn options(node: &Node, command: &mut Command) {
    command.arg("-q").arg("-F").arg("none").arg("-i").arg(&node.key);
    let option = |name: &str, value: &OsStr| {
        let mut pair = std::ffi::OsString::from(format!("{name}="));
        pair.push(value);
        pair
    };
    for (name, value) in [
        ("ControlPath", node.control.as_os_str()),
        ("UserKnownHostsFile", node.host_keys.as_os_str()),
        ("HostName", OsStr::new("127.0.0.1")),
        ("HostKeyAlias", OsStr::new("cryopod-node")),
        ("StrictHostKeyChecking", OsStr::new("yes")),
        ("IdentitiesOnly", OsStr::new("yes")),
        ("PreferredAuthentications", OsStr::new("publickey")),
        ("ConnectTimeout", OsStr::new("20")),
        ("BatchMode", OsStr::new("yes")),
        ("LogLevel", OsStr::new("ERROR")),
        ("Port", OsStr::new(&node.state.ssh_port.to_string())),
    ] {
        command.arg("-o").arg(option(name, value));
    }
}

/// ssh with everything but destination and command.
pub(super) fn client(node: &Node) -> Command {
    if !alive(node) {
        // Without the shared connection the call opens its own: slower, not wrong.
        connect(node, 1).ok();
    }
    let mut command = Command::new("ssh");
    options(node, &mut command);
    command
}

pub(super) fn run<A: AsRef<str>>(node: &Node, argv: impl IntoIterator<Item = A>) -> Result<Output, Error> {
    let output = node.command(argv).stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Program { program: "ssh", source })?;
    Ok(Output {
        code: output.status.code().unwrap_or(255),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

pub(super) fn copy(node: &Node, from: &OsStr, to: &OsStr) -> Result<(), Error> {
    if !alive(node) {
        connect(node, 1).ok();
    }
    let mut command = Command::new("scp");
    options(node, &mut command);
    // -O: the node has no sftp server.
    command.args(["-O", "-r", "-p", "--"]).arg(from).arg(to).stdin(Stdio::null());
    let output = command.output().map_err(|source| Error::Program { program: "scp", source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Copy {
        from: from.to_string_lossy().into_owned(),
        to: to.to_string_lossy().into_owned(),
        said: last_words(&String::from_utf8_lossy(&output.stderr)),
    })
}

fn control(node: &Node, verb: &str) -> io::Result<bool> {
    let mut command = Command::new("ssh");
    options(node, &mut command);
    command.args(["-O", verb, "root@node"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.status()?.success())
}

fn alive(node: &Node) -> bool {
    node.control.exists() && control(node, "check").unwrap_or(false)
}

pub(super) fn disconnect(node: &Node) {
    if node.control.exists() {
        control(node, "exit").ok();
        std::fs::remove_file(&node.control).ok();
    }
}

pub(super) fn connect(node: &Node, seconds: u32) -> Result<(), Error> {
    if alive(node) {
        return Ok(());
    }
    std::fs::remove_file(&node.control).ok();
    let end = Instant::now() + Duration::from_secs(u64::from(seconds));
    loop {
        let mut command = Command::new("ssh");
        options(node, &mut command);
        command.args(["-f", "-N", "-M", "root@node"]);
        // The log file is stderr here: the connection goes on in the background and must not hold ours.
        let log = node.control.with_extension("log");
        command.arg("-E").arg(&log).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().map_err(|source| Error::Program { program: "ssh", source })?;
        if status.success() {
            return Ok(());
        }
        if Instant::now() >= end || !node.state.is_running() {
            let said = last_words(&std::fs::read_to_string(&log).unwrap_or_default());
            return Err(Error::Unreachable { name: node.name.clone(), said });
        }
        thread::sleep(Duration::from_millis(300));
    }
}
