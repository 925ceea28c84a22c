//! A further process in namespaces that somebody else lives in. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cryopod_init::plan::{Process, User};
use cryopod_init::report::Report;
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const FLAGS: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;

struct Container {
    keeper: Child,
    first: Pid,
    cgroup: tempfile::TempDir,
}

impl Container {
    fn run() -> Self {
        let script = "hostname of-the-container; exec sleep 1000";
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", keeper.id());
        let until = Instant::now() + Duration::from_secs(20);
        let first = loop {
            assert!(Instant::now() < until && keeper.try_wait().unwrap().is_none(), "it does not come up");
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            let pid: Option<i32> = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
            let name =
                pid.map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default());
            if let (Some(pid), Some("sleep\n")) = (pid, name.as_deref()) {
                break Pid::from_raw(pid).unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        // A file stands for the cgroup's: this machine may have none of version 2.
        let cgroup = tempfile::tempdir().unwrap();
        File::create(cgroup.path().join("cgroup.procs")).unwrap();
        Self { keeper, first, cgroup }
    }

    /// What it said, what was reported, and how the process that entered ended.
    fn exec(&self, script: &str, change: impl FnOnce(&mut Process)) -> (String, Report) {
        let mut plan = Process {
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/usr/bin:/bin".to_owned()],
            cwd: "/".into(),
            ..Process::default()
        };
        change(&mut plan);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&serde_json::to_vec(&plan).unwrap()).unwrap();
        let (mut report, theirs) = UnixStream::pair().unwrap();
        let container = pidfd_open(self.first, PidfdFlags::empty()).unwrap();
        let cgroup = File::open(self.cgroup.path()).unwrap();
        let fds: [&dyn AsFd; 4] = [&file, &theirs, &container, &cgroup];
        for fd in fds {
            rustix::io::fcntl_setfd(fd.as_fd(), FdFlags::empty()).unwrap();
        }
        let numbers =
            [file.as_raw_fd(), theirs.as_raw_fd(), container.as_raw_fd(), cgroup.as_raw_fd(), FLAGS];
        let child = Command::new(env!("CARGO_BIN_EXE_cryopod-init"))
            .arg("exec")
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop((theirs, file, container, cgroup));
        let said = Report::hear(&mut report).unwrap().expect("it went away without a word");
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success());
        (String::from_utf8(done.stdout).unwrap(), said)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.keeper.kill().ok();
        self.keeper.wait().ok();
    }
}

#[test]
fn it_runs_beside_the_first_process_as_whom_the_plan_says() {
    let container = Container::run();
    let script = "hostname; cat /proc/1/comm; id -u; ls /proc/self/fd | wc -l; echo $$";
    let (said, report) = container.exec(script, |plan| {
        plan.user = User { uid: 65534, gid: 65534, ..User::default() };
    });
    let (said, number) = said.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(said, "of-the-container\nsleep\n65534\n4");
    let Report::Running { pid } = report else { panic!("{report:?}") };
    assert_ne!(pid.to_string(), number, "the number inside");
    assert_eq!(std::fs::read(container.cgroup.path().join("cgroup.procs")).unwrap(), b"0");
}

#[test]
fn why_it_does_not_run_is_said() {
    let container = Container::run();
    let (_, report) = container.exec("", |plan| plan.args = vec!["no-such-program".to_owned()]);
    let Report::Failed { message, errno } = report else { panic!("{report:?}") };
    assert!(message.contains("no-such-program") && errno == Some(2), "{message}");
    let (_, report) = container.exec("true", |plan| plan.cwd = "/dev/null/x".into());
    assert!(
        matches!(&report, Report::Failed { message, .. } if message.contains("/dev/null/x")),
        "{report:?}"
    );
}
