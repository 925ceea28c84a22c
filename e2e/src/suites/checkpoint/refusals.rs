//! What is refused, by which reason, and that nothing was touched then.

use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::Case;
use crate::crictl::{Container, Pod};
use crate::cryopod::{self, Checkpoint};
use crate::shell::{self, eventually};
use crate::story::{Volume, counting, counting_with, restored_pod};
use crate::suite::{Failure, ensure};
use crate::{ticks, workloads};

pub const CASES: &[Case] = &[
    ("a_pod_with_an_open_exec_session_is_refused_and_auto_takes_its_disk", true, exec_session),
    ("a_pod_whose_dump_criu_refuses_is_captured_on_disk_by_auto_alone", false, refused_by_criu),
    ("a_debugger_and_a_device_are_refused_by_name_and_the_pod_runs_on", false, || {
        refused_by_name(&[TRACED, DEVICE])
    }),
    ("a_file_of_another_container_is_refused_by_name_and_the_pod_runs_on", false, foreign_file),
    ("a_checkpoint_of_another_cpu_is_refused_with_the_difference", false, other_cpu),
    ("a_checkpoint_that_does_not_exist_is_refused_at_create", true, no_such_checkpoint),
    ("a_manifest_with_path_tricks_is_refused", true, path_tricks),
    ("a_pod_that_does_not_exist_is_not_found", false, no_such_pod),
];

/// `crictl exec` of a sleeper, ended when dropped.
struct Session(Child);

impl Session {
    fn open(container: &Container) -> Result<Self, Failure> {
        let mut command = Command::new("crictl");
        command.args(["exec", &container.id, "sleep", "7777"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let session = Self(command.spawn().map_err(|e| format!("crictl exec: {e}"))?);
        eventually("the exec session runs", Duration::from_secs(30), || {
            Ok((shell::sh("pgrep -fx 'sleep 7777'")?.code == 0).then_some(()))
        })?;
        Ok(session)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The sleeper first: crictl ends with it.
        if let Err(e) = shell::sh("kill $(pgrep -fx 'sleep 7777')") {
            eprintln!("clean-up: {e}");
        }
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

fn exec_session() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let session = Session::open(&source.container)?;
    let refusal = cryopod::refused(&["checkpoint", &source.pod.id, "--mode", "full"], 6)?;
    ensure(refusal.contains("exec-session"), || format!("not refused for exec-session: {refusal}"))?;
    let checkpoint = Checkpoint::of(&source.pod.id)?;
    let manifest = checkpoint.manifest()?;
    let code = &manifest["memory_refused"]["code"];
    ensure(manifest["mode"] == "disk" && code == "exec-session", || {
        format!("mode {}, memory refused for {code}", manifest["mode"])
    })?;
    drop(session);
    ticks::goes_on(&source.container, &source.before)?;
    source.pod.remove()?;
    checkpoint.delete().map(drop)
}

/// The preflight sees nothing of a connection to a socket of the host: only the dump finds out.
fn refused_by_criu() -> Result<(), Failure> {
    const CONNECT: &str = "import socket\n\
                           outside = socket.socket(socket.AF_UNIX)\n\
                           outside.connect('/host/socket')\n\
                           run(lambda i: None)\n";
    let pod = Pod::run("cryopod", "source")?;
    let volume = Volume::host_path(&pod, "/host")?;
    let path = volume.path().join("socket");
    let listener = UnixListener::bind(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    // What is mounted read-only is no part of a checkpoint.
    let mount =
        json!({"mounts": [{"container_path": "/host", "host_path": volume.path(), "readonly": true}]});
    let container = pod.start(&workloads::python("outside", CONNECT).with(&mount))?;
    let before = ticks::beyond(&container, 3)?;
    let connection = listener.accept().map_err(|e| format!("{}: {e}", path.display()))?;

    let refusal = cryopod::refused(&["checkpoint", &pod.id, "--mode", "full"], 6)?;
    ensure(refusal.contains("unix-socket-outside"), || format!("not refused for the socket: {refusal}"))?;
    let between = ticks::goes_on(&container, &before)?;
    let checkpoint = Checkpoint::with(&pod.id, &["--mode", "auto"])?;
    let manifest = checkpoint.manifest()?;
    let code = &manifest["memory_refused"]["code"];
    ensure(manifest["mode"] == "disk" && code == "unix-socket-outside", || {
        format!("mode {}, memory refused for {code}", manifest["mode"])
    })?;
    let (frozen, total) = (&manifest["timeline"]["freeze_us"], &manifest["timeline"]["total_us"]);
    let phases = manifest["timeline"]["phases"].to_string();
    ensure(phases.contains("refused dump") && frozen.as_u64() < total.as_u64(), || {
        format!("frozen {frozen} µs of {total} µs: {phases}")
    })?;
    ticks::goes_on(&container, &between)?;
    checkpoint.settle()?;
    checkpoint.verify()?;
    drop(connection);
    pod.remove()?;
    checkpoint.delete().map(drop)
}

/// A workload that the preflight refuses: the code, how it prepares itself, what its container needs.
struct Refused {
    code: &'static str,
    setup: &'static str,
    extra: fn() -> Value,
}

const TRACED: Refused = Refused {
    code: "traced",
    setup: "import ctypes\n\
            if os.fork() == 0:\n    \
                check(ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0, 'PTRACE_TRACEME')\n    \
                while True:\n        \
                    time.sleep(1)\n",
    extra: || json!({}),
};

const DEVICE: Refused = Refused {
    code: "device-file",
    setup: "device = os.open('/dev/zfs', os.O_RDWR)\n",
    extra: || json!({"devices": [{"container_path": "/dev/zfs", "host_path": "/dev/zfs", "permissions": "rw"}]}),
};

fn refused_by_name(table: &[Refused]) -> Result<(), Failure> {
    for Refused { code, setup, extra } in table {
        let spec = workloads::python(code, &format!("{setup}run(lambda i: None)\n")).with(&extra());
        let source = counting_with("cryopod", &[], spec)?;
        let refusal = cryopod::refused(&["checkpoint", &source.pod.id, "--mode", "full"], 6)?;
        ensure(refusal.contains(code), || format!("not refused for {code}: {refusal}"))?;
        ticks::goes_on(&source.container, &source.before)?;
        source.pod.remove()?;
    }
    Ok(())
}

/// One container hands a file of its root to another one, which cannot be dumped then.
fn foreign_file() -> Result<(), Failure> {
    const GIVER: &str = "import socket\n\
                         server = socket.socket(socket.AF_UNIX)\n\
                         server.bind('/shared/socket')\n\
                         server.listen()\n\
                         taker, _ = server.accept()\n\
                         socket.send_fds(taker, [b'x'], [append('/data/given')])\n\
                         taker.close()\n\
                         run(lambda i: None)\n";
    const TAKER: &str = "import socket\n\
                         giver = socket.socket(socket.AF_UNIX)\n\
                         while giver.connect_ex('/shared/socket') != 0:\n    \
                             time.sleep(0.1)\n\
                         _, given, _, _ = socket.recv_fds(giver, 1, 1)\n\
                         giver.close()\n\
                         run(lambda i: os.write(given[0], b'x'))\n";
    let pod = Pod::run("cryopod", "source")?;
    let volume = Volume::empty_dir(&pod, "/shared")?;
    pod.start(&workloads::python("giver", GIVER).with(&volume.mount()))?;
    let taker = pod.start(&workloads::python("taker", TAKER).with(&volume.mount()))?;
    let before = ticks::beyond(&taker, 3)?;
    let refusal = cryopod::refused(&["checkpoint", &pod.id, "--mode", "full"], 6)?;
    ensure(refusal.contains("host-file") && refusal.contains("taker"), || {
        format!("not refused for the file: {refusal}")
    })?;
    ticks::goes_on(&taker, &before)?;
    pod.remove()
}

/// Changes the manifest in the store.
fn tamper(checkpoint: &Checkpoint, change: impl FnOnce(&mut Value)) -> Result<(), Failure> {
    checkpoint.unlock()?;
    let path = checkpoint.content()?.join("manifest.json");
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut manifest = serde_json::from_slice(&std::fs::read(&path).map_err(failed)?)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    change(&mut manifest);
    std::fs::write(&path, manifest.to_string()).map_err(failed)
}

/// Makes the commit marker fit the changed manifest: one that was written so by another program or an attacker.
fn sign(checkpoint: &Checkpoint) -> Result<(), Failure> {
    let path = checkpoint.content()?.join("manifest.json");
    let script = "hash=$(sha256sum < \"$0\" | cut -d' ' -f1); \
                  data=$(zfs list -H -o name -t filesystem | grep \"/checkpoints/$1$\"); \
                  old=$(zfs get -H -o value cryopod:manifest \"$data\"); \
                  case $old in *:*) hash=${old%%:*}:$hash;; esac; \
                  zfs set cryopod:manifest=$hash \"$data\"";
    shell::exec_ok(&["sh", "-ec", script, &path.display().to_string(), &checkpoint.id]).map(drop)
}

/// A restore that has to fail at create or start, with these words.
fn refused_restore(checkpoint: &str, words: &[&str]) -> Result<(), Failure> {
    let pod = restored_pod("cryopod", "refused", checkpoint, &[])?;
    let spec = crate::crictl::Spec::counter("counter");
    let error = match pod.start(&spec) {
        Ok(_) => return Err("it was restored".into()),
        Err(error) => error,
    };
    for word in words {
        ensure(error.contains(word), || format!("the error does not say {word:?}: {error}"))?;
    }
    pod.remove()
}

fn other_cpu() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    checkpoint.settle()?;
    tamper(&checkpoint, |manifest| {
        if let Some(flags) = manifest["node"]["cpu_flags"].as_array_mut() {
            flags.push("avx1024f".into());
            flags.sort_by_key(Value::to_string);
        }
    })?;
    refused_restore(&checkpoint.id, &["changed after the commit"])?;
    sign(&checkpoint)?;
    refused_restore(&checkpoint.id, &["avx1024f"])?;
    checkpoint.delete().map(drop)
}

fn no_such_checkpoint() -> Result<(), Failure> {
    refused_restore("no-such-checkpoint", &["no-such-checkpoint"])
}

fn path_tricks() -> Result<(), Failure> {
    let source = counting("cryopod")?;
    let checkpoint = Checkpoint::with(&source.pod.id, &["--mode", "full"])?;
    source.pod.remove()?;
    checkpoint.settle()?;
    tamper(&checkpoint, |manifest| {
        manifest["members"][0]["memory"]["files"][0]["path"] = "../../../../../etc/shadow".into();
    })?;
    let error = cryopod::refused(&["checkpoints", "verify", &checkpoint.id], 12)?;
    ensure(error.contains("manifest"), || format!("the error is {error}"))?;
    refused_restore(&checkpoint.id, &["manifest"])?;
    sign(&checkpoint)?;
    let error = cryopod::refused(&["checkpoints", "verify", &checkpoint.id], 12)?;
    ensure(error.contains("etc/shadow"), || format!("the error does not show the path: {error}"))?;
    refused_restore(&checkpoint.id, &["etc/shadow"])?;
    checkpoint.delete().map(drop)
}

fn no_such_pod() -> Result<(), Failure> {
    let error = cryopod::refused(&["checkpoint", "no-such-pod"], 3)?;
    ensure(error.contains("no-such-pod"), || format!("the error is {error}"))
}
