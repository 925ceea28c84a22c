//! Others who call an OCI runtime, with `cryopod-lxc` in runc's place: podman of Debian, and containerd's own shim.

use std::time::Duration;

use super::OURS;
use crate::shell::{Finished, eventually, exec, exec_ok};
use crate::suite::{Failure, ensure};

/// A test of this room: its name and what it does.
type Case = (&'static str, fn() -> Result<(), Failure>);

/// All of them.
pub(super) const CASES: &[Case] = &[
    ("podman_runs_a_container_and_answers_its_exit_code", podman_run),
    ("podman_execs_in_a_container_stops_and_removes_it", podman_life),
    ("containerds_own_shim_runs_a_task_with_it", containerd_shim),
];

const ARCHIVE: &str = "/var/lib/node/images/busybox.tar";
const IMAGE: &str = "localhost/busybox:1";
const LONG: Duration = Duration::from_secs(60);

/// podman with a store of its own, which goes with it.
struct Podman;

const STORE: &str = "/var/lib/cryopod-e2e/podman";
const RUN: &str = "/run/cryopod-e2e/podman";

impl Podman {
    fn with_image() -> Result<Self, Failure> {
        let podman = Self;
        podman.ok(&["load", "--quiet", "--input", ARCHIVE])?;
        Ok(podman)
    }

    fn call(&self, arguments: &[&str]) -> Result<Finished, Failure> {
        let common =
            ["podman", "--root", STORE, "--runroot", RUN, "--runtime", OURS, "--cgroup-manager", "cgroupfs"];
        exec(&[&common, arguments].concat())
    }

    fn ok(&self, arguments: &[&str]) -> Result<String, Failure> {
        let done = self.call(arguments)?;
        ensure(done.code == 0, || format!("podman {} ended with {done:?}", arguments.join(" ")))?;
        Ok(done.stdout.trim().to_owned())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Takes the mounts of the store away as well, and the store with them.
        if let Err(e) = self.ok(&["system", "reset", "--force"]) {
            eprintln!("clean-up: {e}");
        }
        // conmon's groups, which podman makes once and leaves; those in use stay.
        for group in ["libpod_parent/conmon", "libpod_parent"] {
            std::fs::remove_dir(std::path::Path::new("/sys/fs/cgroup").join(group)).ok();
        }
    }
}

fn said(done: &Finished, stdout: &str, code: i32) -> Result<(), Failure> {
    ensure(done.code == code && done.stdout.trim() == stdout, || {
        format!("expected {stdout:?} and exit code {code}, got {done:?}")
    })
}

fn podman_run() -> Result<(), Failure> {
    let podman = Podman::with_image()?;
    let done = podman.call(&["run", "--rm", "--network", "none", IMAGE, "sh", "-c", "echo hi; exit 3"])?;
    said(&done, "hi", 3)?;
    gone()
}

fn podman_life() -> Result<(), Failure> {
    let podman = Podman::with_image()?;
    let script = "trap 'exit 5' TERM; while :; do sleep 0.1; done";
    podman.ok(&["run", "--detach", "--name", "one", "--network", "none", IMAGE, "sh", "-c", script])?;
    said(&podman.call(&["exec", "one", "sh", "-c", "echo $((6*7)); exit 4"])?, "42", 4)?;
    podman.ok(&["stop", "--time", "30", "one"])?;
    let state = podman.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "one"])?;
    ensure(state == "exited 5", || format!("after stop it is {state}"))?;
    podman.ok(&["rm", "one"])?;
    gone()
}

/// Nothing of podman's may be left in the runtime.
fn gone() -> Result<(), Failure> {
    let left = exec_ok(&[OURS, "list"])?;
    ensure(!left.contains(STORE), || format!("left behind:\n{left}"))
}

const NAMESPACE: &str = "cryopod-e2e";
const TASK: &str = "oci-validation";

fn ctr(arguments: &[&str]) -> Result<Finished, Failure> {
    exec(&[&["ctr", "-n", NAMESPACE], arguments].concat())
}

/// The namespace with what the test made in it.
struct Namespace;

impl Drop for Namespace {
    fn drop(&mut self) {
        let steps: &[&[&str]] = &[
            &["task", "rm", "--force", TASK],
            &["container", "rm", TASK],
            &["images", "rm", "--sync", IMAGE],
            &["namespaces", "rm", NAMESPACE],
        ];
        for step in steps {
            // Some of it is gone already on most paths.
            if let Err(e) = ctr(step) {
                eprintln!("clean-up: {e}");
            }
        }
        std::fs::remove_dir(format!("/sys/fs/cgroup/{NAMESPACE}")).ok();
    }
}

fn containerd_shim() -> Result<(), Failure> {
    let _namespace = Namespace;
    let import = ["images", "import", "--local", "--snapshotter", "overlayfs", ARCHIVE];
    exec_ok(&[&["ctr", "-n", NAMESPACE], &import[..]].concat())?;
    let run = |more: &[&str], command: &[&str]| {
        let common = [
            "run",
            "--snapshotter",
            "overlayfs",
            "--runtime",
            "io.containerd.runc.v2",
            "--runc-binary",
            OURS,
        ];
        ctr(&[&common, more, &[IMAGE, TASK], command].concat())
    };
    said(&run(&["--rm"], &["sh", "-c", "echo hi; exit 3"])?, "hi", 3)?;
    let started = run(&["--detach"], &["sleep", "300"])?;
    ensure(started.code == 0, || format!("ctr run --detach: {started:?}"))?;
    let root = format!("/run/containerd/runc/{NAMESPACE}");
    let state = exec_ok(&["lxc-info", "-P", &root, "-n", TASK, "-H", "-s"])?;
    ensure(state.trim() == "RUNNING", || format!("lxc-info says {state}"))?;
    said(&ctr(&["task", "exec", "--exec-id", "e", TASK, "sh", "-c", "echo $((6*7)); exit 4"])?, "42", 4)?;
    let killed = ctr(&["task", "kill", "--signal", "SIGKILL", TASK])?;
    ensure(killed.code == 0, || format!("ctr task kill: {killed:?}"))?;
    eventually("the task is stopped", LONG, || {
        let list = ctr(&["task", "ls"])?.stdout;
        Ok(list.lines().any(|line| line.starts_with(TASK) && line.contains("STOPPED")).then_some(()))
    })?;
    // It ends with the exit code of the task, as `ctr run` does; that it is gone is what counts.
    ctr(&["task", "rm", TASK])?;
    let left = exec_ok(&[OURS, "--root", &root, "list", "--quiet"])?;
    ensure(left.is_empty(), || format!("left behind: {left}"))
}
