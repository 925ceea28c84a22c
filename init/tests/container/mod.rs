//! A container whose first process is the program itself, for the tests of what it becomes.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use cryopod_init::plan::{Capabilities, Plan, Process};
use cryopod_init::report::Report;
use rustix::fs::{FileType, Mode};
use rustix::io::FdFlags;

/// Descriptors for a child must not reach the child of another test.
static SPAWNING: Mutex<()> = Mutex::new(());

pub struct Container {
    child: Child,
    pub report: UnixStream,
    dir: tempfile::TempDir,
}

pub fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// What root has here, which may be less than the kernel knows.
fn own_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    u64::from_str_radix(field(&status, "CapPrm:"), 16).unwrap()
}

pub fn plan(script: &str) -> Plan {
    let all = own_capabilities();
    let process = Process {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".to_owned(), "GREETING=two words".to_owned()],
        cwd: "/".into(),
        capabilities: Capabilities {
            bounding: all,
            effective: all,
            permitted: all,
            ..Capabilities::default()
        },
        ..Process::default()
    };
    Plan { process, ..Plan::default() }
}

impl Container {
    pub fn create(plan: &Plan, trees: &[OwnedFd]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fifo = |name: &str| {
            let path = dir.path().join(name);
            rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
            File::options().read(true).write(true).open(path).unwrap()
        };
        let (start, result) = (fifo("start"), fifo("result"));
        let (report, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&serde_json::to_vec(plan).unwrap()).unwrap();
        let spawning = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
        let inherit = |fd: &dyn AsFd, flags| rustix::io::fcntl_setfd(fd.as_fd(), flags).unwrap();
        let fds: Vec<&dyn AsFd> = vec![&file, &theirs, &start, &result];
        let all = || fds.iter().copied().chain(trees.iter().map(|tree| tree as &dyn AsFd));
        all().for_each(|fd| inherit(fd, FdFlags::empty()));
        let number = |fd: RawFd| fd.to_string();
        let child = Command::new("unshare")
            .args([
                "--mount",
                "--uts",
                "--propagation",
                "private",
                env!("CARGO_BIN_EXE_cryopod-init"),
                "pid1",
            ])
            .args([file.as_raw_fd(), theirs.as_raw_fd(), start.as_raw_fd(), result.as_raw_fd()].map(number))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        all().for_each(|fd| inherit(fd, FdFlags::CLOEXEC));
        drop(spawning);
        Self { child, report, dir }
    }

    pub fn answer(&mut self) -> Report {
        Report::hear(&mut self.report).unwrap().expect("it went away without a word")
    }

    pub fn start(&self) -> Option<Report> {
        let mut result = File::open(self.dir.path().join("result")).unwrap();
        std::fs::write(self.dir.path().join("start"), b"x").unwrap();
        Report::hear(&mut result).unwrap()
    }

    pub fn finish(self) -> (Option<i32>, String, String) {
        let done = self.child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    }
}

/// Starts it, and waits for its end.
pub fn ended(container: Container) -> String {
    assert_eq!(container.start(), None);
    let (code, stdout, stderr) = container.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    stdout
}
